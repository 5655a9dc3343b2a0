import os
import subprocess
import sys

import pytest
import torch

from nasseg.train.device import autocast, place, seeded, to_device

from .tiny import tiny_network


def test_random_numbers_depend_on_seed_and_step_alone(cpu: torch.device) -> None:
    draws = {}
    for seed, step in [(0, 0), (0, 1), (1, 0), (0, 2**32)]:
        for outside in (3, 4):
            torch.manual_seed(outside)
            with seeded(cpu, seed, step):
                draws.setdefault((seed, step), []).append(torch.rand(1).item())
    assert all(first == second for first, second in draws.values())
    assert len({first for first, _ in draws.values()}) == 4


def test_global_random_state_is_left_alone(cpu: torch.device) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(cpu, 0, 0):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("has_instructions", "may_use_them", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_processors_train_in_bfloat16_if_they_have_it_and_may_use_it(
    cpu: torch.device, monkeypatch: pytest.MonkeyPatch, has_instructions: bool, may_use_them: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: may_use_them)
    with autocast(cpu, amp=True):
        assert tiny_network()(torch.rand(1, 3, 4, 4)).dtype == dtype
    with autocast(cpu, amp=False):
        assert tiny_network()(torch.rand(1, 3, 4, 4)).dtype == torch.float32


def test_bfloat16_is_not_emulated() -> None:
    """oneDNN reads once, when it loads, what it may use: hence a process of its own."""
    code = "import torch; from nasseg.train.device import mixed_precision_dtype as d; print(d(torch.device('cpu')))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None"]


def test_inputs_become_float32_channels_last(cpu: torch.device) -> None:
    value = torch.rand(2, 3, 4, 4).half()
    moved = to_device({"image": value}, cpu)["image"]
    assert torch.equal(moved, value.float())
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_place_makes_weights_channels_last(cpu: torch.device) -> None:
    network = tiny_network()
    place(network, cpu)
    assert network.backbone[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_cuda_random_numbers() -> None:
    device = torch.device("cuda")
    before = torch.cuda.get_rng_state()
    with seeded(device, 0, 5):
        first = torch.rand(3, device=device)
    with seeded(device, 0, 5):
        assert torch.equal(torch.rand(3, device=device), first)
    assert torch.equal(torch.cuda.get_rng_state(), before)
