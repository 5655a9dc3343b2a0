"""The suite for operators refuses what is wrong with one, and pytest runs it in three lines."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from nasseg.ops import Op
from nasseg.testing import OperatorCase, OperatorConformance

SUITE = OperatorConformance()


class Doubling(Op):
    """A convolution that does what its fields say; not installed."""

    model_config = ConfigDict(frozen=False)

    op: Literal["doubling"] = "doubling"
    stride: int = 1
    layer: str = "right"

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        return 2 * in_channels[0]

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        channels = in_channels[0]
        modules: dict[str, nn.Module] = {
            "wrong channels": nn.Conv2d(channels, channels, 3, self.stride, padding=1),
            "wrong padding": nn.Conv2d(channels, 2 * channels, 2, self.stride),
            "one for all": ONE_FOR_ALL,
            "in place": nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, 2 * channels, 1)),
            "random": nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), Noise()),
            "unused": Unused(channels),
            "one format": OneFormat(channels, 2 * channels, 1),
            "weights of its own": nn.Sequential(WeightsOfItsOwn(channels), nn.BatchNorm2d(2 * channels)),
            "not in ONNX": nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), Bessel()),
        }
        return modules.get(self.layer, nn.Conv2d(channels, 2 * channels, 3, self.stride, padding=1))


ONE_FOR_ALL = nn.Conv2d(4, 8, 1)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Unused(nn.Conv2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, 1)
        self.left = nn.Parameter(torch.zeros(1))


class OneFormat(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).lerp(input.repeat(1, 2, 1, 1), 0.5)


class WeightsOfItsOwn(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * channels, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def case(**fields: Any) -> OperatorCase:
    return OperatorCase(Doubling(**fields), channels=(4,))


def test_what_is_right_passes() -> None:
    for stride in (1, 2):
        SUITE.test_the_output_has_the_channels_and_the_size_it_should(case(stride=stride), (7, 5), 2)
    SUITE.test_each_module_has_weights_of_its_own(case())
    SUITE.test_inputs_stay_as_they_are(case(), training=True)
    SUITE.test_evaluation_is_the_same_each_time(case())
    SUITE.test_gradients_of_a_batch_of_one_are_finite(case(), (7, 5))
    SUITE.test_mixed_precision_computes_nearly_the_same(case())
    SUITE.test_the_form_for_inference_gives_the_same_output(case())


@pytest.mark.parametrize("layer", ["wrong channels", "wrong padding"])
def test_wrong_shapes_are_found(layer: str) -> None:
    with pytest.raises(AssertionError):
        SUITE.test_the_output_has_the_channels_and_the_size_it_should(case(layer=layer, stride=2), (7, 5), 2)


def test_weights_that_modules_share_are_found() -> None:
    with pytest.raises(AssertionError):
        SUITE.test_each_module_has_weights_of_its_own(case(layer="one for all"))


def test_work_in_place_is_found() -> None:
    with pytest.raises(AssertionError):
        SUITE.test_inputs_stay_as_they_are(case(layer="in place"), training=False)


def test_randomness_in_evaluation_is_found() -> None:
    with pytest.raises(AssertionError):
        SUITE.test_evaluation_is_the_same_each_time(case(layer="random"))


def test_a_parameter_without_use_is_found() -> None:
    with pytest.raises(AssertionError, match="left"):
        SUITE.test_gradients_of_a_batch_of_one_are_finite(case(layer="unused"), (7, 5))


def test_maps_of_one_format_only_are_found() -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        SUITE.test_mixed_precision_computes_nearly_the_same(case(layer="one format"))


def test_batch_norm_that_cannot_be_folded_is_found() -> None:
    with pytest.raises(AssertionError):
        SUITE.test_the_form_for_inference_gives_the_same_output(case(layer="weights of its own"))


@pytest.mark.slow
def test_what_onnx_does_not_have_is_found() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    SUITE.test_onnxruntime_gives_the_same_output(case())
    with pytest.raises(ValueError, match="cannot be exported to ONNX"):
        SUITE.test_onnxruntime_gives_the_same_output(case(layer="not in ONNX"))


def test_what_is_not_installed_is_told_how() -> None:
    with pytest.raises(AssertionError, match=r'"nasseg.ops"\] doubling = "tests.testing.test_operators:Dou'):
        SUITE.test_files_know_it_by_its_kind(case())


def test_what_can_change_is_found() -> None:
    with pytest.raises(pytest.fail.Exception):
        SUITE.test_it_never_changes(case())


TEST_FILE = """
from nasseg.ops import Conv
from nasseg.testing import OperatorCase, OperatorConformance

class TestConv(OperatorConformance):
    case = OperatorCase(Conv(out_channels=3), channels=(2,))

class TestWrong(OperatorConformance):
    case = OperatorCase(Conv(out_channels=3), channels=(2,), size=lambda height, width: (height, 9))
"""


@pytest.mark.slow
def test_three_lines_run_all_checks_and_failures_show_values(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TEST_FILE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    checks = sum(name.startswith("test_") for name in dir(OperatorConformance))
    shapes, more = 6, 2 + 1  # cases of the test of shapes; more cases of other tests than one
    assert f"{shapes} failed, {2 * (checks + shapes - 1 + more) - shapes} passed" in done.stdout
    assert "assert torch.Size([1, 3, 8, 6]) == (1, 3, 8, 9)" in done.stdout
