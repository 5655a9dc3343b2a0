import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasseg.cost import op_madds
from nasseg.data import Augment, open_dataset, training_batches
from nasseg.data.subset import halves
from nasseg.space.relaxation import Relaxable, RelaxationOptions
from nasseg.train.checkpoint import load_checkpoint, save_checkpoint
from nasseg.train.relaxation.decoding import decode_within
from nasseg.train.relaxation.recipe import RelaxationRecipe
from nasseg.train.relaxation.trainer import RelaxationSnapshot, RelaxationTrainer, fit_relaxation, seeded_relaxation
from tests.jobs.tiny import DATA, Head, TinyRelaxation, TinySpace

CPU = torch.device("cpu")
TRAIN = open_dataset(DATA).split("train")
SIZE = (64, 96)


def recipe(**changes: Any) -> RelaxationRecipe:
    return RelaxationRecipe(**{"steps": 6, "batch_size": 2, "crop": (32, 48), "amp": False, **changes})


def trainer(seed: int = 0, **changes: Any) -> RelaxationTrainer:
    relaxation = seeded_relaxation(TinySpace(), len(TRAIN.classes), RelaxationOptions(), seed)
    relaxation.price(op_madds, SIZE)
    return RelaxationTrainer(relaxation, recipe(**changes), TRAIN, CPU, seed)


def parameters(trainer: RelaxationTrainer) -> tuple[Tensor, dict[str, Tensor]]:
    """α, and the weights by name, as they are now."""
    weights = {name: value.detach().clone() for name, value in trainer.relaxation.named_parameters()}
    return weights.pop("alpha"), weights


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_the_tiny_space_can_be_searched_by_gradient() -> None:
    assert isinstance(TinySpace(), Relaxable)


def test_weights_are_trained_first_and_both_from_half_of_the_steps_on() -> None:
    it = trainer()
    start = parameters(it)
    it.run(3)
    middle = parameters(it)
    assert torch.equal(middle[0], start[0])
    assert not any(torch.equal(middle[1][name], start[1][name]) for name in start[1])
    assert it.architecture_loss is None
    it.run(4)
    end = parameters(it)
    assert not torch.equal(end[0], middle[0])
    assert it.architecture_loss is not None


def test_a_step_is_one_of_sgd_on_one_half_and_then_one_of_adam_on_the_other() -> None:
    """Against the same two updates written out with PyTorch's own optimizers, each seeing its own gradients only."""
    it = trainer(architecture_start=0, cost_weight=-0.5)
    own = copy.deepcopy(it.relaxation).train()
    assert isinstance(own, TinyRelaxation)
    own.dropout.p = it.relaxation.dropout.p = 0.0  # type: ignore[union-attr, assignment]
    weights = [value for name, value in own.named_parameters() if name != "alpha"]
    augment = Augment(crop=(32, 48), scale=(0.5, 2.0), flip=True)
    batches = [next(training_batches(half, augment, 2, 0)) for half in halves(TRAIN, 0)]

    loss = F.cross_entropy(own(batches[0].inputs["image"]), batches[0].masks, ignore_index=255)
    gradients = torch.autograd.grad(loss, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.data -= 0.025 * (gradient + 3e-4 * weight.data)
    architecture_loss = F.cross_entropy(own(batches[1].inputs["image"]), batches[1].masks, ignore_index=255)
    (own.alpha.grad,) = torch.autograd.grad(architecture_loss + 0.5 * own.expected_cost().log(), own.alpha)
    torch.optim.Adam([own.alpha], lr=3e-3, weight_decay=1e-3).step()

    it.run(1)
    assert it.train_loss == pytest.approx(loss.item(), rel=1e-5)
    assert it.architecture_loss == pytest.approx(architecture_loss.item(), rel=1e-5)
    for name, value in it.relaxation.named_parameters():
        torch.testing.assert_close(value, own.get_parameter(name), rtol=1e-4, atol=1e-6)


def test_the_halves_are_not_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {"weights": set(), "architecture": set()}
    batches = training_batches

    def noting(split: Any, *arguments: Any) -> Any:
        kind = "weights" if not seen["weights"] else "architecture"
        seen[kind].update(split[index].name for index in range(len(split)))
        return batches(split, *arguments)

    monkeypatch.setattr("nasseg.train.relaxation.trainer.training_batches", noting)
    trainer().run(1)
    assert len(seen["weights"]) == len(seen["architecture"]) == 4
    assert not seen["weights"] & seen["architecture"]


def test_cost_pulls_towards_cheap_operators() -> None:
    costs = []
    for weight in (0.0, -5.0):
        it = trainer(steps=6, architecture_start=0, cost_weight=weight, architecture_learning_rate=0.5)
        it.run(6)
        costs.append(it.snapshot().expected_cost)
    assert costs[1] < 0.5 * costs[0]
    assert it.relaxation.decode().kernel == 1


def test_expected_costs_are_in_multiply_adds_of_whole_images() -> None:
    each = torch.tensor([12 * 16 * kernel**2 * 8 * 12 for kernel in (1, 3, 5)], dtype=torch.float32)
    it = trainer()
    assert it.snapshot().expected_cost == pytest.approx((parameters(it)[0].softmax(0) * each).sum().item())


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_training_is_bit_for_bit_the_unbroken_one(tmp_path: Path, stop: int) -> None:
    unbroken = trainer()
    assert unbroken.run(6) == "finished"
    first = trainer()
    first.run(stop)
    save_checkpoint(tmp_path / "state.pt", first.state_dict())
    resumed = trainer(seed=0)
    resumed.relaxation.get_parameter("alpha").data.fill_(7)
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
    assert resumed.run(6) == "finished"
    assert same(resumed.state_dict(), unbroken.state_dict())
    assert resumed.snapshot() == unbroken.snapshot()


def test_seeds_give_other_relaxations_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = trainer(seed=1), trainer(seed=2), trainer(seed=1)
    for it in (a, b, c):
        it.run(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(a.state_dict(), c.state_dict())
    assert not torch.equal(parameters(a)[0], parameters(b)[0])


def test_a_training_that_diverges_says_so() -> None:
    it = trainer(learning_rate=1e30)
    assert it.run(6) == "nonfinite"
    assert 0 < it.step < 6
    assert all(value.isfinite().all() for value in parameters(it)[1].values())
    spoilt = trainer(architecture_start=0)
    spoilt.relaxation.get_parameter("alpha").data[0] = math.nan
    assert (spoilt.run(6), spoilt.step) == ("nonfinite", 0)


@given(st.integers(1, 1000), st.floats(1e-4, 1), st.floats(1e-4, 1))
def test_the_learning_rate_falls_along_a_cosine(steps: int, high: float, low: float) -> None:
    found = recipe(steps=steps, learning_rate=high, final_learning_rate=low)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=high)
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=low)
    for step in range(min(steps, 5)):
        assert found.learning_rate_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        expected.step()
    assert found.learning_rate_at(steps) == pytest.approx(low)


def test_a_fit_leaves_a_snapshot_and_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trainer()
    unbroken.run(6)
    for interval in ("SAVE_EVERY_SECONDS", "SNAPSHOT_EVERY_SECONDS"):
        monkeypatch.setattr(f"nasseg.train.relaxation.trainer.{interval}", -1)
    first, checkpoint, snapshot = trainer(), tmp_path / "relax0.pt", tmp_path / "seed0.json"
    monkeypatch.setattr(RelaxationTrainer, "snapshot", _killed_at(4))
    with pytest.raises(KeyboardInterrupt):
        fit_relaxation(first, 6, checkpoint, snapshot)
    monkeypatch.undo()
    assert RelaxationSnapshot.model_validate_json(snapshot.read_text()).step == 3
    assert load_checkpoint(checkpoint)["step"] == 4
    again = trainer()
    assert fit_relaxation(again, 6, checkpoint, snapshot) == "finished"
    assert same(again.state_dict(), unbroken.state_dict())
    assert RelaxationSnapshot.model_validate_json(snapshot.read_text()) == unbroken.snapshot()


def _killed_at(step: int) -> Any:
    take = RelaxationTrainer.snapshot

    def snapshot(self: RelaxationTrainer) -> RelaxationSnapshot:
        if self.step == step:
            raise KeyboardInterrupt
        return take(self)

    return snapshot


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "largest", "expected"),
    [
        ([0.0, 1.0, 2.0], 5, 5),  # as decoded
        ([0.0, 1.0, 2.0], 3, 3),  # the next likely
        ([1.0, 0.0, 2.0], 3, 1),
        ([0.0, 1.0, 2.0], 1, 1),
        ([0.0, 1.0, 2.0], 0, 5),  # nothing keeps the limit
        ([0.0, 0.0, 200.0], 3, 5),  # too certain to have a gradient
    ],
)
def test_what_keeps_the_limits_is_the_likeliest_on_the_way_down(
    alpha: list[float], largest: int, expected: int
) -> None:
    relaxation = trainer().relaxation
    assert isinstance(relaxation, TinyRelaxation)
    relaxation.alpha.data.copy_(torch.tensor(alpha))

    def keeps_limits(choice: Head) -> bool:
        return choice.kernel <= largest

    assert decode_within(relaxation, keeps_limits).kernel == expected
    assert relaxation.alpha.tolist() == alpha
