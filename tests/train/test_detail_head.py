from collections.abc import Callable

import pytest
import torch

from nasseg import plugins
from nasseg.cost import describe
from nasseg.graph import Architecture, Builder
from nasseg.network import Network
from nasseg.ops import Conv, Resize, logits1x1
from nasseg.train.detail_head import add_detail_head, with_detail_head
from nasseg.train.fit import seeded_network
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer

from .made_up import small_architecture
from .tiny import IGNORED, batches

RECIPE = Recipe(steps=6, batch_size=2, learning_rate=0.05, ema_decay=0.8, detail_head=True)
ADAMW = RECIPE.model_copy(update={"optimizer": "adamw", "learning_rate": 1e-3})


def strided(*strides: int, stage: str = "backbone") -> Architecture:
    """A convolution for each stride, the last scored and resized."""
    g = Builder("strided")
    x = image = g.input()
    for index, stride in enumerate(strides):
        x = g.add(f"{stage}.conv{index}", Conv(out_channels=4 + index, stride=stride), x)
    return g.build(g.add("head.upsample", Resize(), g.add("head.logits", logits1x1(3), x), image))


def trainer(cpu: torch.device, recipe: Recipe = RECIPE, seed: int = 0) -> Trainer:
    return Trainer(seeded_network(strided(2, 2, 2, 2), seed), recipe, recipe.steps, cpu, seed, IGNORED)


@pytest.mark.parametrize(
    ("strides", "read"),
    [
        ((2, 2, 2, 1, 2, 2), "backbone.conv3"),
        ((2, 1, 2, 1), "backbone.conv3"),  # ends at stride 4
        ((16, 2), "backbone.conv0"),
        ((1, 4, 4, 2), "backbone.conv1"),  # 4 and 16 are equally near
    ],
)
def test_the_head_reads_the_last_map_nearest_to_stride_8(strides: tuple[int, ...], read: str) -> None:
    assert with_detail_head(strided(*strides))["detail.conv"].inputs == (read,)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("deeplabv3plus-mobilenetv2", "backbone.features.6"),
        ("deeplabv3plus-efficientnet_lite0", "backbone.blocks.4"),
        ("deeplabv3-resnet50", "backbone.layer2.3"),
        ("fcn8s", "backbone.features.22"),
        ("unet", "backbone.level3.conv2"),
    ],
)
def test_every_network_can_have_the_head(name: str, read: str) -> None:
    without = plugins.baseline(name, 5)
    architecture = with_detail_head(without)
    assert architecture["detail.conv"].inputs == (read,)
    assert architecture.training_outputs == (*without.training_outputs, "detail.logits")
    assert architecture.inference().key == without.inference().key
    one, other = describe(architecture, (64, 96)), describe(without, (64, 96))
    assert (one.params, one.madds) == (other.params, other.madds)
    channels = architecture.channels(read)
    assert one.params_training - other.params_training == (9 * channels + 2) * 64 + 64


def test_the_head_is_stdcs_own() -> None:
    stdc = plugins.baseline("stdc1", 5)
    assert with_detail_head(stdc) is stdc
    removed = {"detail.conv", "detail.logits"}
    headless = stdc.replace(
        nodes=tuple(node for node in stdc.nodes if node.name not in removed),
        training_outputs=tuple(name for name in stdc.training_outputs if name not in removed),
    )
    assert with_detail_head(headless).key == stdc.key


@pytest.mark.parametrize("make", [lambda: strided(2, stage="stem"), lambda: strided(2, 2).cut("backbone")[1]])
def test_a_network_without_a_backbone_is_refused(make: Callable[[], Architecture]) -> None:
    with pytest.raises(ValueError, match="has no stage 'backbone' for a detail head: turn detail_head off"):
        with_detail_head(make())


def test_adding_the_head_changes_no_weight_and_depends_on_the_seed_alone() -> None:
    network = seeded_network(small_architecture(), 1)
    before = torch.get_rng_state()
    first, again, other = (add_detail_head(network, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["detail.conv.0.weight"], other["detail.conv.0.weight"])
    kept = {name: tensor for name, tensor in first.items() if not name.startswith("detail.")}
    torch.testing.assert_close(kept, dict(network.state_dict()), rtol=0, atol=0)


def test_the_head_is_trained_with_the_network_and_left_out_of_the_average(cpu: torch.device) -> None:
    run = trainer(cpu, RECIPE.model_copy(update={"ema_decay": 0.0}))
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    run.run(batches(), until_step=3)
    trained, averaged = run.network.state_dict(), run.ema_network().state_dict()
    assert not torch.equal(trained["detail.conv.0.weight"], before["detail.conv.0.weight"])
    assert run.ema_network().architecture == strided(2, 2, 2, 2)
    assert averaged.keys() == {name for name in trained if not name.startswith("detail.")}
    for name, tensor in averaged.items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, trained[name]), name


def test_the_head_teaches_the_backbone(cpu: torch.device) -> None:
    with_head, without = trainer(cpu), trainer(cpu, RECIPE.model_copy(update={"detail_head": False}))
    for run in (with_head, without):
        run.run(batches(), until_step=1)
    one, other = (dict(run.network.named_parameters()) for run in (with_head, without))
    assert not torch.equal(one["backbone.conv2.0.weight"], other["backbone.conv2.0.weight"])
    assert torch.equal(one["backbone.conv3.0.weight"], other["backbone.conv3.0.weight"])  # after what the head reads


def test_in_evaluation_the_network_is_the_one_without_a_head(cpu: torch.device) -> None:
    run = trainer(cpu)
    run.run(batches(), until_step=6)
    plain = Network(strided(2, 2, 2, 2)).eval()
    plain.load_state_dict(run.ema_network().state_dict())
    image = next(batches(9)).inputs["image"]
    outputs = run.ema_network().outputs({"image": image})
    assert outputs.keys() == {"head.upsample"}
    torch.testing.assert_close(outputs["head.upsample"], plain(image))


@pytest.mark.parametrize("recipe", [RECIPE, ADAMW], ids=["sgd", "adamw"])
def test_a_run_with_the_head_resumes_bit_for_bit(cpu: torch.device, recipe: Recipe) -> None:
    unbroken, first = trainer(cpu, recipe), trainer(cpu, recipe)
    unbroken.run(batches(), until_step=6)
    first.run(batches(), until_step=2)
    second = Trainer(seeded_network(strided(2, 2, 2, 2), 9), recipe, 6, cpu, 0, IGNORED)
    second.load_state_dict(first.state_dict())
    second.run(batches(start_step=2), until_step=6)
    torch.testing.assert_close(second.state_dict(), unbroken.state_dict(), rtol=0, atol=0)


def test_a_loss_that_is_not_finite_restores_the_running_statistics(cpu: torch.device) -> None:
    run = trainer(cpu)
    batch = next(batches())
    batch.inputs["image"][0] = torch.nan
    assert run.run([batch], until_step=1).status == "nonfinite"
    assert all(buffer.isfinite().all() for buffer in run.ema_network().buffers())
    statistics = dict(run.network.named_buffers())
    for name, buffer in run.ema_network().named_buffers():
        assert not buffer.is_floating_point() or torch.equal(statistics[name], buffer), name
