"""Every operator under the suite for operators. A new kind is one `OperatorCase` or more in `CASES`."""

import pytest
import torch

from nasseg.ops import (
    OPS,
    Activation,
    Add,
    AttentionFusion,
    AveragePool,
    BasicBlock,
    Bottleneck,
    Concat,
    Conv,
    Dropout,
    Gate,
    GlobalFilter,
    GlobalPool,
    Identity,
    Input,
    InvertedResidual,
    MaxPool,
    Multiply,
    PyramidPool,
    Resize,
    SelfAttention,
    SeparableConv,
    StdcModule,
    StripPool,
    TransposedConv,
    Zero,
)
from nasseg.testing import OperatorCase as Case
from nasseg.testing import OperatorConformance
from nasseg.testing.operators import OperatorDataConformance, Size


def halved(height: int, width: int) -> Size:
    return -(-height // 2), -(-width // 2)


def doubled(height: int, width: int) -> Size:
    return 2 * height, 2 * width


def cropped(height: int, width: int) -> Size:
    return 2 * height - 1, 2 * width


def pixel(height: int, width: int) -> Size:
    return 1, 1


CASES = [
    Case(Conv(out_channels=6, rate=(2, 1), groups=2), (4,)),
    Case(Conv(out_channels=6, kernel=5, stride=2, bias=True, norm="none", activation="relu6"), (4,)),
    Case(Conv(out_channels=6, kernel=1, activation="none", pre_activation="relu"), (4,)),
    Case(Conv(out_channels=6, stride=2, norm="batch_1e-3", padding="tensorflow"), (4,)),
    Case(SeparableConv(out_channels=6, stride=2, rate=(3, 1)), (4,)),
    Case(SeparableConv(out_channels=6, kernel=5, depthwise_norm="none", pre_activation="relu"), (4,)),
    Case(TransposedConv(out_channels=6), (4,), doubled),
    Case(TransposedConv(out_channels=4, kernel=4, init="bilinear"), (4, 3), cropped, cropped),
    Case(TransposedConv(out_channels=6, bias=True, norm="batch", activation="relu"), (4,), doubled),
    Case(AveragePool(), (4,)),
    Case(AveragePool(kernel=2, stride=2), (4,)),
    Case(MaxPool(stride=2), (4,)),
    Case(MaxPool(kernel=2, stride=2), (4,)),
    Case(PyramidPool(out_channels=6), (4,)),
    Case(PyramidPool(out_channels=6, grid=(4, 2)), (4,)),
    Case(GlobalPool(), (4,), pixel),
    Case(StripPool(out_channels=6), (4,)),
    Case(SelfAttention(out_channels=8), (4,)),
    Case(SelfAttention(out_channels=6, heads=1), (4,)),
    Case(GlobalFilter(out_channels=6), (4,)),
    Case(GlobalFilter(out_channels=6, grid=(3, 1)), (4,)),
    Case(InvertedResidual(out_channels=4), (4,)),
    Case(InvertedResidual(out_channels=6, expansion=1, stride=2), (4,)),
    Case(InvertedResidual(out_channels=4, kernel=5, stride=2, norm="batch_1e-3", padding="tensorflow"), (4,)),
    Case(InvertedResidual(out_channels=4, kernel=7, residual=False), (4,)),
    Case(BasicBlock(out_channels=4, rate=2), (4,)),
    Case(BasicBlock(out_channels=6, stride=2), (4,)),
    Case(BasicBlock(out_channels=4, kernel=5, projection=True), (4,)),
    Case(Bottleneck(out_channels=8), (8,)),
    Case(Bottleneck(out_channels=8, stride=2), (4,)),
    Case(Bottleneck(out_channels=8, kernel=5, projection=True), (8,)),
    Case(StdcModule(out_channels=16), (4,)),
    Case(StdcModule(out_channels=16, blocks=3, stride=2), (4,)),
    Case(Resize(factor=2.0), (4,), doubled),
    Case(Resize(factor=0.5, mode="nearest"), (4,), halved),
    Case(Resize(), (4, 3), cropped, cropped),
    # A map of one channel has both layouts; PyTorch takes it for contiguous, and what it is joined to as well.
    Case(Concat(), (4, 2, 1), channels_last=False),
    Case(Concat(), (4,)),
    Case(Add(), (4, 4, 4)),
    Case(Add(activation="relu"), (4, 4), second=pixel),
    Case(Multiply(), (4, 1)),
    Case(Gate(), (4, 4), second=pixel),
    Case(AttentionFusion(), (4, 4)),
    Case(AttentionFusion(attention="channel"), (4, 4)),
    Case(Activation(activation="relu6"), (4,)),
    Case(Activation(norm="batch"), (4,)),
    Case(Activation(activation="sigmoid"), (4,)),
    Case(Dropout(probability=0.5), (4,)),
    Case(Identity(), (4,)),
    Case(Zero(), (4,)),
]
INPUT = Case(Input(channels=2), ())


def test_every_kind_is_here() -> None:
    assert {case.op.op for case in [*CASES, INPUT]} == set(OPS)


class TestInput(OperatorDataConformance):
    case = INPUT


@pytest.mark.parametrize("case", CASES, ids=str)
class TestOperators(OperatorConformance):
    @pytest.mark.slow
    def test_onnxruntime_gives_the_same_output(self, case: Case) -> None:
        super().test_onnxruntime_gives_the_same_output(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_identity_leaves_out_only_later_fields_at_their_defaults(case: Case) -> None:
    """A file has all fields, a hash none that came later, so that networks from before keep theirs."""
    fields, whole = type(case.op).model_fields, case.op.to_dict()
    assert case.op.later <= set(fields)
    left_out = {name for name in case.op.later if getattr(case.op, name) == fields[name].default}
    assert case.op.identity() == {name: value for name, value in whole.items() if name not in left_out}


@pytest.mark.parametrize(
    "case", [case for case in CASES if isinstance(case.op, (Conv, TransposedConv, PyramidPool, Gate, Resize))], ids=str
)
def test_gradients_equal_differences(case: Case) -> None:
    module = case.module().double().eval()
    inputs = [x.double().requires_grad_() for x in case.inputs((3, 2))]
    assert torch.autograd.gradcheck(module, inputs)
