"""What every operator must do. A new kind is one `Case` or more in `CASES`."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from nasseg.ops import (
    OPS,
    Activation,
    Add,
    AnyOp,
    AveragePool,
    BasicBlock,
    Bottleneck,
    Concat,
    Conv,
    Dropout,
    Gate,
    GlobalPool,
    Identity,
    Input,
    InvertedResidual,
    MaxPool,
    Multiply,
    Op,
    PyramidPool,
    Resize,
    SeparableConv,
    StdcModule,
    TransposedConv,
    Zero,
)

Size = tuple[int, int]


def same(height: int, width: int) -> Size:
    return height, width


def halved(height: int, width: int) -> Size:
    return -(-height // 2), -(-width // 2)


def doubled(height: int, width: int) -> Size:
    return 2 * height, 2 * width


def cropped(height: int, width: int) -> Size:
    return 2 * height - 1, 2 * width


def pixel(height: int, width: int) -> Size:
    return 1, 1


@dataclass(frozen=True)
class Case:
    """An operator on inputs of these channels: the output's size, and the second input's, from the first one's."""

    op: Op
    channels: tuple[int, ...]
    size: Callable[[int, int], Size] = same
    second: Callable[[int, int], Size] = same

    def __str__(self) -> str:
        return f"{self.op}, {len(self.channels)} inputs"

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return self.op.build(self.channels)

    def inputs(self, size: Size, batch: int = 1) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        sizes = [size, self.second(*size), *[size] * len(self.channels)]
        return tuple(
            torch.randn(batch, channels, *size, generator=generator)
            for channels, size in zip(self.channels, sizes, strict=False)
        )


ONE_CHANNEL_CONCAT = Case(Concat(), (4, 2, 1))
"""A map of one channel has both layouts; PyTorch takes it for contiguous, and what it is joined to as well."""
CASES = [
    Case(Conv(out_channels=6, rate=(2, 1), groups=2), (4,)),
    Case(Conv(out_channels=6, kernel=5, stride=2, bias=True, norm="none", activation="relu6"), (4,), halved),
    Case(Conv(out_channels=6, kernel=1, activation="none", pre_activation="relu"), (4,)),
    Case(Conv(out_channels=6, stride=2, norm="batch_1e-3", padding="tensorflow"), (4,), halved),
    Case(SeparableConv(out_channels=6, stride=2, rate=(3, 1)), (4,), halved),
    Case(SeparableConv(out_channels=6, kernel=5, depthwise_norm="none", pre_activation="relu"), (4,)),
    Case(TransposedConv(out_channels=6), (4,), doubled),
    Case(TransposedConv(out_channels=4, kernel=4, init="bilinear"), (4, 3), cropped, cropped),
    Case(TransposedConv(out_channels=6, bias=True, norm="batch", activation="relu"), (4,), doubled),
    Case(AveragePool(), (4,)),
    Case(AveragePool(kernel=2, stride=2), (4,), halved),
    Case(MaxPool(stride=2), (4,), halved),
    Case(MaxPool(kernel=2, stride=2), (4,), halved),
    Case(PyramidPool(out_channels=6), (4,)),
    Case(PyramidPool(out_channels=6, grid=(4, 2)), (4,)),
    Case(GlobalPool(), (4,), pixel),
    Case(InvertedResidual(out_channels=4), (4,)),
    Case(InvertedResidual(out_channels=6, expansion=1, stride=2), (4,), halved),
    Case(InvertedResidual(out_channels=4, kernel=5, stride=2, norm="batch_1e-3", padding="tensorflow"), (4,), halved),
    Case(InvertedResidual(out_channels=4, kernel=7, residual=False), (4,)),
    Case(BasicBlock(out_channels=4, rate=2), (4,)),
    Case(BasicBlock(out_channels=6, stride=2), (4,), halved),
    Case(BasicBlock(out_channels=4, kernel=5, projection=True), (4,)),
    Case(Bottleneck(out_channels=8), (8,)),
    Case(Bottleneck(out_channels=8, stride=2), (4,), halved),
    Case(Bottleneck(out_channels=8, kernel=5, projection=True), (8,)),
    Case(StdcModule(out_channels=16), (4,)),
    Case(StdcModule(out_channels=16, blocks=3, stride=2), (4,), halved),
    Case(Resize(factor=2.0), (4,), doubled),
    Case(Resize(factor=0.5, mode="nearest"), (4,), halved),
    Case(Resize(), (4, 3), cropped, cropped),
    ONE_CHANNEL_CONCAT,
    Case(Concat(), (4,)),
    Case(Add(), (4, 4, 4)),
    Case(Add(activation="relu"), (4, 4), same, pixel),
    Case(Multiply(), (4, 1)),
    Case(Gate(), (4, 4), same, pixel),
    Case(Activation(activation="relu6"), (4,)),
    Case(Activation(norm="batch"), (4,)),
    Case(Activation(activation="sigmoid"), (4,)),
    Case(Dropout(probability=0.5), (4,)),
    Case(Identity(), (4,)),
    Case(Zero(), (4,)),
]
INPUT = Case(Input(channels=2), ())

every_operator = pytest.mark.parametrize("case", [*CASES, INPUT], ids=str)
every_module = pytest.mark.parametrize("case", CASES, ids=str)
sizes = pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)], ids=str)


def test_every_kind_is_here() -> None:
    assert {case.op.op for case in [*CASES, INPUT]} == set(OPS)


def test_every_kind_is_registered_under_its_name() -> None:
    assert {kind: op.model_fields["op"].default for kind, op in OPS.items()} == {kind: kind for kind in OPS}


@every_operator
def test_json_holds_all_of_it(case: Case) -> None:
    text = json.dumps(case.op.to_dict())
    loaded: Op = TypeAdapter(AnyOp).validate_json(text)
    assert loaded == case.op
    assert type(loaded) is type(case.op)
    assert hash(loaded) == hash(case.op)
    assert set(json.loads(text)) == set(type(case.op).model_fields)


@every_operator
def test_its_identity_leaves_out_only_later_fields_at_their_defaults(case: Case) -> None:
    """A file has all fields, a hash none that came later, so that networks from before keep theirs."""
    fields, whole = type(case.op).model_fields, case.op.to_dict()
    assert case.op.later <= set(fields)
    left_out = {name for name in case.op.later if getattr(case.op, name) == fields[name].default}
    assert case.op.identity() == {name: value for name, value in whole.items() if name not in left_out}


@every_operator
def test_it_never_changes(case: Case) -> None:
    for field in type(case.op).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(case.op, field, getattr(case.op, field))


@every_operator
def test_an_unknown_field_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="colour"):
        TypeAdapter(AnyOp).validate_python({**case.op.to_dict(), "colour": 1})


@every_operator
def test_a_wrong_number_of_inputs_is_refused(case: Case) -> None:
    low, high = case.op.arity
    wrong = [low - 1] if low else []
    wrong += [] if high is None else [high + 1]
    for arity in wrong:
        with pytest.raises(ValueError, match=rf"^{case.op.op} has {arity} inputs, but must have (at least )?{low}"):
            case.op.check([4] * arity)


@every_module
@sizes
@pytest.mark.parametrize("batch", [1, 2])
def test_output_has_the_channels_and_the_size_that_the_docstring_says(case: Case, size: Size, batch: int) -> None:
    expected = (batch, case.op.check(case.channels), *case.size(*size))
    module = case.module()
    assert module.train()(*case.inputs(size, batch)).shape == expected
    assert module.eval()(*case.inputs(size, batch)).shape == expected
    with torch.device("meta"):
        on_meta = case.op.build(case.channels)
    assert on_meta(*(x.to("meta") for x in case.inputs(size, batch))).shape == expected


@every_module
@sizes
def test_gradients_of_a_batch_of_one_are_finite(case: Case, size: Size) -> None:
    inputs = [x.requires_grad_() for x in case.inputs(size)]
    module = case.module().train()
    output = module(*inputs)
    (output.square().sum() + 0 * sum(x.sum() for x in inputs)).backward()
    for name, tensor in [*enumerate(inputs), *module.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


@pytest.mark.parametrize("case", [case for case in CASES if case != ONE_CHANNEL_CONCAT], ids=str)
def test_channels_last_stays_so(case: Case) -> None:
    inputs = [x.contiguous(memory_format=torch.channels_last) for x in case.inputs((8, 6), batch=2)]
    module = case.module().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    assert module(*inputs).is_contiguous(memory_format=torch.channels_last)


@every_module
@pytest.mark.parametrize("training", [True, False])
def test_inputs_stay_as_they_are(case: Case, training: bool) -> None:
    inputs = case.inputs((6, 5))
    before = copy.deepcopy(inputs)
    case.module().train(training)(*inputs)
    for x, y in zip(inputs, before, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@every_module
def test_order_counts_unless_it_is_order_free(case: Case) -> None:
    if case.op.order_free:
        module, inputs = case.module().eval(), case.inputs((5, 4))
        torch.testing.assert_close(module(*reversed(inputs)), module(*inputs))


@every_module
@torch.no_grad()
def test_exported_module_gives_the_same_output(case: Case) -> None:
    module, inputs = case.module().eval(), case.inputs((7, 5))
    exported = torch.export.export(module, inputs).module()
    torch.testing.assert_close(exported(*inputs), module(*inputs))


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if isinstance(case.op, (Conv, TransposedConv, PyramidPool, Gate, Resize))],
    ids=str,
)
def test_gradients_equal_differences(case: Case) -> None:
    module = case.module().double().eval()
    inputs = [x.double().requires_grad_() for x in case.inputs((3, 2))]
    assert torch.autograd.gradcheck(module, inputs)
