"""What every baseline must do. A new one is one line in `BASELINES`, with options that keep it small."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.deeplabv3 import (
    deeplabv3_mobilenetv2,
    deeplabv3_resnet50,
    deeplabv3_resnet101,
    deeplabv3_xception65,
    deeplabv3_xception71,
)
from baselines.deeplabv3plus import (
    deeplabv3plus_efficientnet_lite0,
    deeplabv3plus_efficientnet_lite1,
    deeplabv3plus_efficientnet_lite2,
    deeplabv3plus_mobilenetv2,
    deeplabv3plus_resnet50,
    deeplabv3plus_resnet101,
    deeplabv3plus_xception65,
    deeplabv3plus_xception71,
)
from baselines.fcn import fcn8s, fcn16s, fcn32s, fcn_resnet50, fcn_resnet101
from baselines.pspnet import pspnet_resnet50
from baselines.stdc import stdc1, stdc1_classifier, stdc2, stdc2_classifier
from baselines.unet import unet
from baselines.unetplusplus import unetplusplus
from nasseg.graph import Architecture, load, save
from nasseg.network import Network
from search_spaces.auto_deeplab.published import auto_deeplab_l, auto_deeplab_m, auto_deeplab_s

CLASSES = 5
SIZE = (33, 40)

BASELINES: dict[str, Callable[[], Architecture]] = {
    "fcn32s": partial(fcn32s, CLASSES, fc_channels=64),
    "fcn16s": partial(fcn16s, CLASSES, fc_channels=64),
    "fcn8s": partial(fcn8s, CLASSES, fc_channels=64),
    "fcn-resnet50": partial(fcn_resnet50, CLASSES),
    "fcn-resnet101": partial(fcn_resnet101, CLASSES),
    "unet": partial(unet, CLASSES),
    "unetplusplus": partial(unetplusplus, CLASSES),
    "stdc1": partial(stdc1, CLASSES),
    "stdc2": partial(stdc2, CLASSES),
    "stdc1-classifier": partial(stdc1_classifier, CLASSES),
    "stdc2-classifier": partial(stdc2_classifier, CLASSES),
    "deeplabv3-mobilenetv2": partial(deeplabv3_mobilenetv2, CLASSES, filters=16),
    "deeplabv3-resnet50": partial(deeplabv3_resnet50, CLASSES, filters=16),
    "deeplabv3-resnet101": partial(deeplabv3_resnet101, CLASSES, filters=16),
    "deeplabv3-xception65": partial(deeplabv3_xception65, CLASSES, filters=16),
    "deeplabv3-xception71": partial(deeplabv3_xception71, CLASSES, filters=16),
    "deeplabv3plus-mobilenetv2": partial(deeplabv3plus_mobilenetv2, CLASSES, filters=16),
    "deeplabv3plus-efficientnet_lite0": partial(deeplabv3plus_efficientnet_lite0, CLASSES, filters=16),
    "deeplabv3plus-efficientnet_lite1": partial(deeplabv3plus_efficientnet_lite1, CLASSES, filters=16),
    "deeplabv3plus-efficientnet_lite2": partial(deeplabv3plus_efficientnet_lite2, CLASSES, filters=16),
    "deeplabv3plus-resnet50": partial(deeplabv3plus_resnet50, CLASSES, filters=16),
    "deeplabv3plus-resnet101": partial(deeplabv3plus_resnet101, CLASSES, filters=16),
    "deeplabv3plus-xception65": partial(deeplabv3plus_xception65, CLASSES, filters=16),
    "deeplabv3plus-xception71": partial(deeplabv3plus_xception71, CLASSES, filters=16),
    "pspnet-resnet50": partial(pspnet_resnet50, CLASSES),
    "auto_deeplab-s": partial(auto_deeplab_s, CLASSES, filters=4, head_filters=16),
    "auto_deeplab-m": partial(auto_deeplab_m, CLASSES, filters=5, head_filters=16),
    "auto_deeplab-l": partial(auto_deeplab_l, CLASSES, filters=6, head_filters=16),
}

LONG = (
    "efficientnet_lite1",
    "efficientnet_lite2",
    "resnet101",
    "xception65",
    "xception71",
    "stdc2",
    "stdc2-classifier",
    "fcn16s",
    "fcn32s",
    "deeplabv3-resnet50",
    "auto_deeplab-s",
    "auto_deeplab-m",
    "auto_deeplab-l",
)
"""Deep networks, and those that differ little from others: their tests are marked slow."""

BEYOND_FLOAT16 = (
    "fcn-resnet101",
    "deeplabv3-mobilenetv2",
    "deeplabv3-resnet101",
    "deeplabv3plus-resnet101",
    "deeplabv3-xception65",
    "auto_deeplab-s",
    "auto_deeplab-m",
    "auto_deeplab-l",
)

every_baseline = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.endswith(LONG) else ()) for name in BASELINES],
)


@cache
def architecture(name: str) -> Architecture:
    return BASELINES[name]()


@cache
def network(name: str) -> Network:
    """A network in evaluation mode that tests share; those that change it take `fresh`."""
    torch.manual_seed(0)
    return architecture(name).network().eval()


def fresh(name: str) -> Network:
    return copy.deepcopy(network(name))


def images(name: str, batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    channels = architecture(name).channels(architecture(name).inputs[0])
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def logits_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    return (1, 1) if name.endswith("-classifier") else size


def test_every_baseline_is_here() -> None:
    assert {point.name for point in entry_points(group="nasseg.baselines")} <= set(BASELINES)


@every_baseline
@pytest.mark.parametrize("size", [(32, 64), (33, 47)])
@torch.no_grad()
def test_logits_have_the_size_of_the_image(name: str, size: tuple[int, int]) -> None:
    logits = network(name)(images(name, batch=2, size=size))
    assert logits.shape == (2, CLASSES, *logits_size(name, size))
    assert logits.isfinite().all()
    assert logits.std() > 0


@every_baseline
def test_every_parameter_learns_from_a_batch_of_one(name: str) -> None:
    trained = fresh(name).train()
    outputs = trained.outputs({trained.architecture.inputs[0]: images(name)})
    assert set(outputs) == {*trained.architecture.outputs, *trained.architecture.training_outputs}
    sum(output.square().mean() for output in outputs.values()).backward()
    for parameter_name, parameter in trained.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_baseline
def test_a_training_step_lowers_the_loss(name: str) -> None:
    trained, batch = fresh(name).double().train(), images(name, batch=2).double()  # deep ones are too steep for float
    masks = torch.randint(CLASSES, (2, *logits_size(name, SIZE)), generator=torch.Generator().manual_seed(2))

    def loss() -> Tensor:
        torch.manual_seed(3)  # the same dropout before and after
        return F.cross_entropy(trained(batch), masks)

    before = loss()
    before.backward()
    gradients = [parameter.grad for parameter in trained.parameters() if parameter.grad is not None]
    steepness = sum(float(gradient.square().sum()) for gradient in gradients)
    expected = 1e-8 * before.item()  # small enough for the first order to tell
    torch.optim.SGD(trained.parameters(), lr=expected / steepness).step()
    with torch.no_grad():
        after = loss()
    assert 0.5 * expected < before - after < 1.5 * expected


@every_baseline
def test_a_file_holds_all_of_it(name: str, tmp_path: Path) -> None:
    save(architecture(name), tmp_path / "network.json")
    loaded = load(tmp_path / "network.json")
    assert loaded == architecture(name)
    assert loaded.key == architecture(name).key


@pytest.fixture(scope="module")
def keys_of_another_process() -> dict[str, str]:
    script = (
        "import json; from tests.baselines.test_conformance import BASELINES;"
        "print(json.dumps({name: make().key for name, make in BASELINES.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    keys: dict[str, str] = json.loads(done.stdout)
    return keys


@every_baseline
def test_another_process_gives_the_same_key(name: str, keys_of_another_process: dict[str, str]) -> None:
    assert keys_of_another_process[name] == architecture(name).key


@every_baseline
@torch.no_grad()
def test_inference_drops_what_only_training_needs(name: str) -> None:
    small = architecture(name).inference().network().eval()
    rest = set(network(name).state_dict()) - set(small.state_dict())
    assert bool(rest) == bool(architecture(name).training_outputs)
    small.load_state_dict({key: value for key, value in network(name).state_dict().items() if key not in rest})
    torch.testing.assert_close(small(images(name)), network(name)(images(name)))
    description = architecture(name).describe(SIZE)
    assert description.params == sum(parameter.numel() for parameter in small.parameters())
    assert description.params_training == sum(parameter.numel() for parameter in network(name).parameters())


@every_baseline
@torch.no_grad()
def test_exported_network_gives_the_same_logits(name: str) -> None:
    exported = torch.export.export(network(name), (images(name),)).module()
    torch.testing.assert_close(exported(images(name)), network(name)(images(name)))


@every_baseline
@torch.no_grad()
def test_compiled_network_gives_the_same_logits(name: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(network(name), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images(name)), network(name)(images(name)))


@every_baseline
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_gives_about_the_same_logits(name: str, dtype: torch.dtype) -> None:
    if dtype == torch.float16 and name in BEYOND_FLOAT16:
        pytest.skip("untrained, it computes values beyond the range of float16")
    expected = network(name)(images(name))
    logits = fresh(name).to(dtype)(images(name).to(dtype))
    assert logits.dtype == dtype
    assert (logits.float() - expected).norm() < 0.05 * expected.norm()


@every_baseline
@torch.no_grad()
def test_channels_last_gives_the_same_logits(name: str) -> None:
    logits = fresh(name).to(memory_format=torch.channels_last)(
        images(name).contiguous(memory_format=torch.channels_last)
    )
    expected = network(name)(images(name))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
