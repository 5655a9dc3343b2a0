import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nasseg import plugins
from nasseg.graph import Builder
from nasseg.network import Network
from nasseg.ops import conv, logits1x1
from nasseg.train.ahead.snapshot import Snapshot
from nasseg.train.checkpoint import load_checkpoint, save_checkpoint
from nasseg.train.fit import seeded_network
from nasseg.train.losses import cross_entropy, detail_loss, ohem_cross_entropy
from nasseg.train.metrics import MetricsCounter
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer

from .tiny import IGNORED, Batch, TinyNetwork, batches, tiny_network

RECIPE = Recipe(steps=10, learning_rate=0.1, head_multiplier=2, warmup_steps=1, ema_decay=0.9, nesterov=True)
ADAMW = Recipe(
    steps=10, optimizer="adamw", learning_rate=0.01, weight_decay=0.1, head_multiplier=3, warmup_steps=1, ema_decay=0.9
)
PLAIN = Recipe(steps=10, learning_rate=0.1, momentum=0, weight_decay=0, poly_power=0)


def trainer(recipe: Recipe = RECIPE, network: nn.Module | None = None, total_steps: int = 10, seed: int = 0) -> Trainer:
    return Trainer(network or tiny_network(), recipe, total_steps, torch.device("cpu"), seed, IGNORED)  # type: ignore[arg-type]


def assert_equal(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("recipe", [RECIPE, ADAMW], ids=["sgd", "adamw"])
def test_resumed_run_is_the_unbroken_run_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    unbroken = trainer(recipe)
    log = unbroken.run(batches(), until_step=10)

    first = trainer(recipe)
    before = first.run(batches(), until_step=5)
    save_checkpoint(tmp_path / "a.pt", first.state_dict())
    torch.manual_seed(77)  # a new process has another global state
    second = trainer(recipe, network=tiny_network(seed=9))
    second.load_state_dict(load_checkpoint(tmp_path / "a.pt"))
    after = second.run(batches(start_step=5), until_step=10)

    assert before.losses + after.losses == log.losses
    assert (log.status, log.step, second.step) == ("finished", 10, 10)
    assert_equal(second.state_dict(), unbroken.state_dict())


def test_dropout_depends_on_the_seed() -> None:
    losses = [trainer(seed=seed).run(batches(), until_step=2).losses for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_global_random_state_is_left_alone() -> None:
    run = trainer()
    before = torch.get_rng_state()
    run.run(batches(), until_step=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_loss() -> None:
    losses = trainer(total_steps=60).run(batches(), until_step=60).losses
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_a_step_by_hand() -> None:
    """Plain SGD on loss + 0.5 auxiliary + 2 detail, the head at three times the backbone's learning rate."""
    recipe = PLAIN.model_copy(update={"auxiliary_weight": 0.5, "detail_weight": 2.0, "head_multiplier": 3.0})
    network = tiny_network(dropout=0)
    by_hand = copy.deepcopy(network).train()
    batch = next(batches())
    trainer(recipe, network).run([batch], until_step=1)

    outputs = by_hand.outputs(batch.inputs)
    loss = (
        cross_entropy(outputs["head"], batch.masks, IGNORED)
        + 0.5 * cross_entropy(outputs["auxiliary16.logits"], batch.masks, IGNORED)
        + 2 * detail_loss(outputs["detail.logits"], batch.masks, IGNORED)
    )
    loss.backward()
    with torch.no_grad():
        for name, parameter in by_hand.named_parameters():
            assert parameter.grad is not None
            parameter -= (0.1 if name.startswith("backbone.") else 0.3) * parameter.grad
    torch.testing.assert_close(network.state_dict(), by_hand.state_dict())


def test_a_step_on_features_is_pytorchs_own_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell with atrous separable convolutions of all rates, trained on features, against PyTorch's kernels."""
    space = plugins.space("dpc:filters=8", named_by_user="dpc")
    cell = space.architecture(space.references()["dpc"], 3).cut("backbone")[1]
    network = Network(cell).double()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0
    by_hand = copy.deepcopy(network).train()
    generator = torch.Generator().manual_seed(0)
    image, stored = cell.inputs
    values = torch.randn(4, cell.channels(stored), 17, 33, generator=generator, dtype=torch.float64)
    features = {image: torch.zeros(1, 1, 17, 33), stored: values}
    masks = torch.randint(0, 3, (4, 17, 33), generator=generator)
    trainer(PLAIN, network).run([Batch(features, masks)], until_step=1)

    monkeypatch.setattr(conv, "convolve", stock_convolution)
    logits = next(iter(by_hand.outputs(features).values()))
    F.cross_entropy(logits, masks).backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
    torch.testing.assert_close(network.state_dict(), by_hand.state_dict(), rtol=1e-9, atol=1e-9)


def stock_convolution(layer: nn.Conv2d, image: Tensor, padding: tuple[int, int]) -> Tensor:
    return F.conv2d(image, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def test_steps_of_adamw_by_hand() -> None:
    """PyTorch's own AdamW, one for each group; the learning rate is halved for the first step, by the warm-up."""
    network = tiny_network(dropout=0)
    network.backbone[0].register_parameter("bias", None)  # before a norm, its gradient is rounding alone
    by_hand = copy.deepcopy(network).train()
    steps = list(islice(batches(), 3))
    trainer(ADAMW, network).run(steps, until_step=3)

    optimizers = {
        name: torch.optim.AdamW(
            [parameter],
            lr=0.01 if name.startswith("backbone.") else 0.03,
            weight_decay=0.1 if parameter.ndim > 1 else 0.0,
        )
        for name, parameter in by_hand.named_parameters()
    }
    initial = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    for step, batch in enumerate(steps):
        outputs = by_hand.outputs(batch.inputs)
        auxiliary = cross_entropy(outputs["auxiliary16.logits"], batch.masks, IGNORED)
        detail = detail_loss(outputs["detail.logits"], batch.masks, IGNORED)
        (cross_entropy(outputs["head"], batch.masks, IGNORED) + 0.4 * auxiliary + detail).backward()
        factor = (0.5 if step == 0 else 1) * (1 - step / 10) ** 0.9
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = factor * initial[name]
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(network.state_dict(), by_hand.state_dict(), rtol=1e-4, atol=1e-5)


def test_decay_leaves_norms_and_biases_alone() -> None:
    """With every pixel ignored the gradient is zero, so weight decay alone acts."""
    network = tiny_network()
    before = copy.deepcopy(network.state_dict())
    batch = next(batches())
    ignored = Batch(batch.inputs, torch.full_like(batch.masks, IGNORED))
    log = trainer(PLAIN.model_copy(update={"weight_decay": 0.5}), network).run([ignored], until_step=1)
    assert log.losses == (0.0,)
    for name, parameter in network.named_parameters():
        expected = before[name] * (0.95 if parameter.ndim > 1 else 1)
        torch.testing.assert_close(parameter.detach(), expected)


def test_learning_rates_follow_the_schedule() -> None:
    seen: list[tuple[int, float]] = []
    trainer().run(batches(), until_step=3, on_step=lambda step, loss, rate: seen.append((step, rate)))
    assert seen == [(step, pytest.approx(0.1 * RECIPE.learning_rate_factor(step, 10))) for step in range(3)]


def test_average_by_hand_with_its_warm_up() -> None:
    run = trainer()
    expected = copy.deepcopy(run.network).state_dict()
    stream = batches()
    for step in range(4):
        run.run(stream, until_step=step + 1)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in run.network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    average = run.ema_network()
    assert not average.training
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])


def test_averaged_running_statistics_fit_the_averaged_weights() -> None:
    """Better than the last step's own would: those fit the last weights."""
    run = trainer(RECIPE.model_copy(update={"ema_decay": 0.99}), total_steps=400)
    run.run(batches(), until_step=400)
    average = run.ema_network()
    with torch.no_grad():
        images = torch.cat([batch.inputs["image"] for batch in islice(batches(), 100)])
        true_mean = average.backbone[0](images).mean(dim=(0, 2, 3))
    error = (average.backbone[1].running_mean - true_mean).norm()
    error_of_last = (run.network.backbone[1].running_mean - true_mean).norm()
    assert error < 0.5 * error_of_last


def test_without_a_decay_the_average_is_the_network() -> None:
    run = trainer(PLAIN)
    run.run(batches(), until_step=3)
    assert_equal(dict(run.ema_network().named_parameters()), dict(run.network.named_parameters()))


def spoilt(kind: str) -> list[Batch]:
    good = list(islice(batches(), 4))
    image = good[2].inputs["image"].clone()
    image[0, 0, 0, 0] = math.nan if kind == "nan" else math.inf
    good[2] = Batch({"image": image}, good[2].masks)
    return good


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_training(kind: str) -> None:
    run = trainer()
    log = run.run(spoilt(kind), until_step=4)
    assert (log.status, log.step, len(log.losses)) == ("nonfinite", 2, 2)
    healthy = trainer()
    healthy.run(batches(), until_step=2)
    assert_equal(dict(run.network.named_parameters()), dict(healthy.network.named_parameters()))
    assert_equal(run.ema_network().state_dict(), healthy.ema_network().state_dict())
    assert all(buffer.isfinite().all() for buffer in run.network.buffers())


class InfiniteGradient(TinyNetwork):
    """The square root of zero times zero: a finite loss with a gradient that is not."""

    def outputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        outputs = super().outputs(inputs)
        return outputs | {"head": outputs["head"] + (0 * outputs["head"]).sqrt()}


def test_a_gradient_that_is_not_finite_stops_training() -> None:
    run = trainer(network=InfiniteGradient())
    before = copy.deepcopy(dict(run.network.named_parameters()))
    assert run.run(batches(), until_step=1).status == "nonfinite"
    assert_equal(dict(run.network.named_parameters()), before)


# --- a device that runs ahead ----------------------------------------------------------------------------------------


def ahead(monkeypatch: pytest.MonkeyPatch, recipe: Recipe = RECIPE, steps: int = 4) -> Trainer:
    with monkeypatch.context() as patch:
        patch.setattr("nasseg.train.trainer.steps_ahead", lambda device: steps)
        return trainer(recipe)


@pytest.mark.parametrize("recipe", [RECIPE, ADAMW], ids=["sgd", "adamw"])
def test_losses_that_are_read_later_change_nothing(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [trainer(recipe), ahead(monkeypatch, recipe)]
    logs = [run.run(batches(), until_step=10) for run in runs]
    assert logs[0].losses == logs[1].losses
    assert_equal(runs[1].state_dict(), runs[0].state_dict())


@pytest.mark.parametrize("wrong", range(4))
def test_a_loss_that_is_not_finite_is_undone_with_all_after_it(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is among the steps that are taken at once."""
    run, healthy = ahead(monkeypatch), trainer()
    spoilt = list(islice(batches(), 8))
    image = torch.full_like(spoilt[3 + wrong].inputs["image"], math.nan)
    spoilt[3 + wrong] = Batch({"image": image}, spoilt[3 + wrong].masks)
    log = run.run(spoilt, until_step=8)
    healthy.run(batches(), until_step=3 + wrong)
    assert (log.status, log.step, run.step, len(log.losses)) == ("nonfinite", *[3 + wrong] * 3)
    found, expected = run.state_dict(), healthy.state_dict()
    assert_equal(dict(run.network.named_parameters()), dict(healthy.network.named_parameters()))
    assert_equal(found["average"], expected["average"])
    assert_equal(found["optimizer"]["state"], expected["optimizer"]["state"])
    assert all(buffer.isfinite().all() for buffer in run.network.buffers())


def test_batches_that_end_among_steps_that_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ahead(monkeypatch)
    with pytest.raises(ValueError, match="The batches ended at step 3, but training continues to step 5"):
        run.run(list(islice(batches(), 3)), until_step=5)
    run.run(batches(start_step=3), until_step=10)
    unbroken = trainer()
    unbroken.run(batches(), until_step=10)
    assert_equal(run.state_dict(), unbroken.state_dict())


def test_batches_that_fill_the_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step, which makes the optimizer's state, is taken alone."""
    monkeypatch.setattr("nasseg.train.trainer.MOST_BYTES_AHEAD", 2 * next(batches()).inputs["image"].nbytes)
    run, begun, take = ahead(monkeypatch, steps=20), list[int](), Snapshot.take

    def noted(self: Snapshot, tensors: Sequence[Tensor]) -> None:
        begun.append(run.step)
        take(self, tensors)

    monkeypatch.setattr(Snapshot, "take", noted)
    run.run(batches(), until_step=8)
    assert begun == [1, 3, 5, 7]


def test_whoever_looks_at_each_step_sees_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run, steps = ahead(monkeypatch), list[tuple[int, int]]()
    run.run(batches(), 6, lambda step, loss, learning_rate: steps.append((step, run.step)))
    assert steps == [(step, step + 1) for step in range(6)]


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for: single values that are read, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        indexed = packet is torch.ops.aten.index and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += indexed or packet in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.bincount,
            torch.ops.aten.masked_select,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [{}, {"loss": "ohem", "boundary_weight": 5.0}, {"class_weights": (1.0, 2.0, 0.5)}])
def test_nothing_is_waited_for_between_two_readings(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, counted = Recipe.model_validate(RECIPE.model_dump() | changes), list[int]()
    for run in (trainer(recipe), ahead(monkeypatch, recipe, steps=9)):
        steps = list(islice(batches(), 10))
        run.run(steps[:1], until_step=1)
        with Waits() as waits:
            run.run(steps[1:], until_step=10)
        counted.append(waits.count)
    assert counted == [9, 0], "the losses of the second are read together, as a list"


def test_nothing_is_waited_for_while_pixels_are_counted() -> None:
    counter = MetricsCounter(3, IGNORED, torch.device("cpu"), boundary=True)
    masks = torch.stack([batch.masks[0] for batch in islice(batches(), 3)])
    with Waits() as waits:
        counter.update(masks.clamp(max=2), masks)
    assert waits.count == 0
    assert counter.compute().miou == 1


def test_on_step_may_stop_between_two_steps() -> None:
    def stop(step: int, loss: float, learning_rate: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    run = trainer()
    with pytest.raises(KeyboardInterrupt):
        run.run(batches(), until_step=10, on_step=stop)
    assert run.step == 3
    run.run(batches(start_step=3), until_step=10)
    unbroken = trainer()
    unbroken.run(batches(), until_step=10)
    assert_equal(run.state_dict(), unbroken.state_dict())


def test_too_few_batches() -> None:
    with pytest.raises(ValueError, match="The batches ended at step 3, but training continues to step 5"):
        trainer().run(list(islice(batches(), 3)), until_step=5)


def test_beyond_the_schedule() -> None:
    with pytest.raises(ValueError, match="until_step is 11, but the schedule ends at total_steps = 10"):
        trainer().run(batches(), until_step=11)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ohem"},
        {"class_weights": (1.0, 2.0, 0.5)},
        {"boundary_weight": 5.0},
        {"loss": "ohem", "boundary_weight": 5.0},
    ],
)
def test_other_losses_train(changes: dict[str, object]) -> None:
    recipe = Recipe.model_validate(RECIPE.model_dump() | changes)
    losses = trainer(recipe, total_steps=40).run(batches(), until_step=40).losses
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("loss", [cross_entropy, ohem_cross_entropy])
def test_the_boundary_weight_is_the_recipes(loss: Callable[..., Tensor]) -> None:
    network, batch = tiny_network(dropout=0), next(batches())
    outputs = copy.deepcopy(network).train().outputs(batch.inputs)
    expected = (
        loss(outputs["head"], batch.masks, IGNORED, boundary_weight=5.0)
        + 0.4 * loss(outputs["auxiliary16.logits"], batch.masks, IGNORED, boundary_weight=5.0)
        + detail_loss(outputs["detail.logits"], batch.masks, IGNORED)
    )
    name = "ohem" if loss is ohem_cross_entropy else "cross_entropy"
    recipe = RECIPE.model_copy(update={"loss": name, "boundary_weight": 5.0})
    log = trainer(recipe, network).run([batch], until_step=1)
    assert log.losses == pytest.approx([expected.item()], rel=1e-5)


@pytest.mark.gpu
def test_mixed_precision_on_cuda_trains() -> None:
    device = torch.device("cuda")
    run = Trainer(tiny_network(), RECIPE, 60, device, 0, IGNORED)  # type: ignore[arg-type]
    log = run.run(batches(), until_step=60)
    assert log.status == "finished"
    assert sum(log.losses[-5:]) < 0.75 * sum(log.losses[:5])


class LittleMemory(TinyNetwork):
    """Memory suffices for so many images; without a norm, whose statistics would be those of a part of the batch."""

    def __init__(self, most_images: int) -> None:
        super().__init__(dropout=0)
        self.most_images, self.runs = most_images, 0
        self.backbone[1] = nn.Identity()

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.runs += 1
        if len(inputs["image"]) > self.most_images:
            raise torch.OutOfMemoryError("out of memory")
        assert inputs["size"].shape == (1, 1, 8, 8)
        return {"head": super().outputs(inputs)["head"]}


def eight_images() -> Batch:
    parts = list(islice(batches(), 4))
    masks = torch.cat([part.masks for part in parts])
    masks[0] = masks[3, 5:] = IGNORED
    size = torch.zeros(1, 1, 8, 8)
    return Batch({"image": torch.cat([part.inputs["image"] for part in parts]), "size": size}, masks)


@pytest.mark.parametrize(("most_images", "runs"), [(8, 1), (4, 3), (3, 6)])
def test_a_batch_that_memory_does_not_hold_is_trained_in_parts(most_images: int, runs: int) -> None:
    whole, split = (LittleMemory(images) for images in (8, most_images))
    split.load_state_dict(whole.state_dict())
    losses = [
        trainer(PLAIN, network).run([eight_images(), eight_images()], until_step=2).losses for network in (whole, split)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(split.state_dict(), whole.state_dict())
    # The first step finds the number of parts, the next one has as many from its start.
    parts = {8: 1, 4: 2, 3: 4}[most_images]
    assert split.runs == runs + parts
    assert whole.runs == 2


def test_a_network_that_two_images_are_too_much_for_fails() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        trainer(PLAIN, LittleMemory(1)).run([eight_images()], until_step=1)


@pytest.mark.parametrize("weights", [{"class_weights": (1.0, 5.0, 9.0)}, {"boundary_weight": 3.0}, {}])
def test_a_batch_in_parts_learns_from_a_teacher_as_the_whole_one_does(weights: dict[str, Any]) -> None:
    masks = torch.zeros(4, 32, 32, dtype=torch.int64)
    masks[1, :, 8:], masks[2], masks[3, ::2] = IGNORED, 1, 2
    batch = Batch({"image": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}, masks)
    g = Builder("plain")
    architecture = g.build(g.add("head.logits", logits1x1(3), g.input()))
    losses = []
    for accumulate in (1, 2, 4):
        teacher = seeded_network(architecture, 1)
        for parameter in teacher.parameters():
            parameter.data.mul_(100)
        recipe = Recipe(steps=1, batch_size=4, accumulate=accumulate, **weights)
        student = seeded_network(architecture, 0)
        taught = Trainer(student, recipe, 1, torch.device("cpu"), 0, IGNORED, teacher=teacher)
        losses += taught.run([batch], until_step=1).losses
    assert losses[0] > 1.5  # log 3 and the divergence
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
