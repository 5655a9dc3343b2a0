from pathlib import Path

import pytest
import torch

from nasseg.data import open_dataset
from nasseg.train import fit as module
from nasseg.train.fit import Stopped, fit, seeded_network
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer

from .made_up import DATA, small_architecture

RECIPE = Recipe(steps=6, batch_size=2, crop=(32, 64), learning_rate=0.05, ema_decay=0.8, colour=0.3)


def train(cpu: torch.device, checkpoint: Path | None = None, stop_at: int | None = None) -> Trainer:
    def on_pause(trainer: Trainer) -> None:
        if trainer.step == stop_at:
            raise Stopped

    split = open_dataset(DATA).split("train")
    network = seeded_network(small_architecture(), 1)
    return fit(network, RECIPE, split, device=cpu, seed=2, checkpoint=checkpoint, on_pause=on_pause)[0]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (seeded_network(small_architecture(), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["backbone.conv.0.weight"], other["backbone.conv.0.weight"])


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(cpu: torch.device, tmp_path: Path, stop_at: int) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        train(cpu, checkpoint, stop_at)
    resumed, unbroken = train(cpu, checkpoint), train(cpu)
    assert resumed.step == unbroken.step == 6
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=0, atol=0)


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    cpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_SECONDS", -1.0)
    train(cpu, tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 6


def test_a_device_that_runs_ahead_ends_with_the_same_state(cpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    known = train(cpu).state_dict()
    for name in ("nasseg.train.fit", "nasseg.train.trainer"):
        monkeypatch.setattr(f"{name}.steps_ahead", lambda device: 4)
    torch.testing.assert_close(train(cpu).state_dict(), known, rtol=0, atol=0)


def test_stopping_without_a_checkpoint_leaves_no_file(cpu: torch.device, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(cpu, stop_at=1)
    assert list(tmp_path.iterdir()) == []
