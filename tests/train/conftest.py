import pytest
import torch


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(autouse=True)
def float32_on_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32, as expected values do, whatever this processor is fast with."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
