"""Two processes that train together, joined by gloo: this one and a child."""

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

from nasseg.graph import Architecture, Builder, save
from nasseg.ops import Conv, Resize, logits1x1
from nasseg.ops.layers import BatchNorm, FastDropout
from nasseg.train.distributed.group import Group
from nasseg.train.distributed.layers import DropoutOfPart, see_whole_batches
from nasseg.train.fit import Stopped
from nasseg.train.retrain import Retraining
from tests.train.made_up import CLASSES, DATA, small_architecture
from tests.train.test_retrain import Recorder

STEPS = 20
CHANGES = {"steps": STEPS, "batch_size": 4, "boundary_weight": 2.0}
UNBROKEN, STOPPED, PARTS = "unbroken", "stopped", "parts"


def join(rank: int, folder: str) -> Group:
    torch.set_num_threads(1)
    torch.cpu._is_avx512_bf16_supported = lambda: False  # type: ignore[attr-defined]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    return Group.joined()


def train(folder: Path, group: Group, stop_at: int | None = None) -> Recorder:
    recorder = Recorder(stop_at)
    Retraining.load(folder).run(recorder, group)
    return recorder


def without_norms() -> Architecture:
    g = Builder("plain")
    image = g.input()
    features = g.add("backbone.conv", Conv(out_channels=8, stride=2, norm="none"), image)
    return g.build(g.add("head.upsample", Resize(), g.add("head.logits", logits1x1(CLASSES), features), image))


class Layers(NamedTuple):
    """What batch norm and dropout make of this process's half of a batch, and the gradients."""

    outputs: torch.Tensor
    gradients: list[torch.Tensor]
    buffers: dict[str, torch.Tensor]
    noise: torch.Tensor


def layers(group: Group | None) -> Layers:
    """With a group, for its part of the batch; without one, for the whole."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(4, 3, 5, 6, generator=generator) * 2 + 3
    network = nn.Sequential(BatchNorm(3), nn.ReLU(), FastDropout(0.25))
    nn.init.uniform_(network[0].weight, 0.5, 1.5, generator=generator)
    if group is not None:
        see_whole_batches(network, group)
        batch = batch.chunk(group.size)[group.rank]
    batch = batch.contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.manual_seed(7)
    noise = network[2](torch.ones_like(batch))
    outputs = network[1](network[0](batch))
    (outputs.square() * (1 + torch.arange(6))).sum().backward()
    assert batch.grad is not None
    return Layers(outputs.detach(), [batch.grad], dict(network[0].named_buffers()), noise)


def child(folder: str) -> None:
    group = join(1, folder)
    layers(group)
    train(Path(folder, UNBROKEN), group)
    train(Path(folder, PARTS), group)
    with suppress(Stopped):
        train(Path(folder, STOPPED), group)
    train(Path(folder, STOPPED), group)
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads outlive the group; one that drops a tensor while Python ends would abort the process


class Together(NamedTuple):
    folder: Path
    alone: Recorder
    both: Recorder
    plain: Recorder
    parts: Recorder
    layers: Layers


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """A network trained alone, by both processes, and by both with a stop; one without norms also in two parts each."""
    folder = tmp_path_factory.mktemp("together")
    save(small_architecture(), folder / "small.json")
    save(without_norms(), folder / "plain.json")
    names = ("train_split", "val_split", "weights")

    def prepare(name: str, arch: str = "small.json", **changes: Any) -> Retraining:
        options: dict[str, Any] = {**dict.fromkeys(names), "recipe": "short", "device": "cpu", "seed": 3}
        options |= {"data": DATA, "validate_every": 5, "changes": {**CHANGES, **changes}}
        return Retraining.prepare(str(folder / arch), folder / name, **options)

    process = multiprocessing.get_context("spawn").Process(target=child, args=(str(folder),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        alone, plain = Recorder(), Recorder()
        prepare("alone").run(alone)
        prepare("plain", "plain.json").run(plain)
        for name in (UNBROKEN, STOPPED):
            prepare(name)
        prepare(PARTS, "plain.json", accumulate=2)
        process.start()
        group = join(0, str(folder))
        try:
            computed = layers(group)
            both, parts = train(folder / UNBROKEN, group), train(folder / PARTS, group)
            with pytest.raises(Stopped):
                train(folder / STOPPED, group, stop_at=7)
            train(folder / STOPPED, group)
        finally:
            dist.destroy_process_group()
            process.join(60)
    assert process.exitcode == 0
    return Together(folder, alone, both, plain, parts, computed)


def test_two_workers_have_the_losses_of_one(together: Together) -> None:
    assert list(together.both.losses) == list(range(1, STEPS + 1))
    assert together.both.losses == pytest.approx(together.alone.losses, abs=1e-4)
    assert together.alone.losses[1] - together.alone.losses[STEPS] > 0.1  # or equal losses would tell nothing


def test_two_workers_have_the_scores_and_the_weights_of_one(together: Together) -> None:
    assert together.both.scores == pytest.approx(together.alone.scores, abs=1e-3)
    one, two = (
        safetensors.torch.load_file(together.folder / name / "model.safetensors") for name in ("alone", UNBROKEN)
    )
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-3)


def test_two_workers_that_take_their_share_in_parts_have_the_losses_of_one(together: Together) -> None:
    assert together.parts.losses == pytest.approx(together.plain.losses, abs=1e-4)


def test_two_workers_stop_together_and_go_on_bit_for_bit(together: Together) -> None:
    for name in ("model.safetensors", "best.safetensors", "validations.json"):
        assert (together.folder / STOPPED / name).read_bytes() == (together.folder / UNBROKEN / name).read_bytes()


def test_layers_see_the_whole_batch(together: Together) -> None:
    whole, part = layers(None), together.layers
    torch.testing.assert_close(part.outputs, whole.outputs[:2])
    torch.testing.assert_close(part.gradients[0], whole.gradients[0][:2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(part.buffers, whole.buffers)
    assert torch.equal(part.noise, whole.noise[:2])


def test_layers_keep_the_names_and_tensors_of_a_network() -> None:
    network = nn.Sequential(nn.Sequential(BatchNorm(3)), nn.Dropout(0.5))
    before = dict(network.state_dict(keep_vars=True))
    see_whole_batches(network, Group(0, 2))
    assert isinstance(network[1], DropoutOfPart)
    after = network.state_dict(keep_vars=True)
    assert {name: id(tensor) for name, tensor in after.items()} == {name: id(tensor) for name, tensor in before.items()}
    network.eval()
    torch.testing.assert_close(network(torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2), rtol=1e-4, atol=1e-4)
