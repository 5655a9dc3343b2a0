"""The suite for operators."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from nasseg.cost.backends import choose_backend, to_onnx, to_program
from nasseg.cost.inference import inference_form
from nasseg.ops import ENTRY_POINTS, AnyOp, Op, operators
from nasseg.testing.suite import Suite, how_to_register

Size = tuple[int, int]


def same(height: int, width: int) -> Size:
    """Return the size itself."""
    return height, width


@dataclass(frozen=True)
class OperatorCase:
    """An operator on inputs of `channels` channels.

    `size` and `second` map the first input's size to the output's and the second input's. Without `size`, the output's
    must be ceil(size / stride), as with "same" padding; the stride is 1 unless the operator has a field `stride`.
    `channels_last` is false if the output cannot keep that layout.
    """

    op: Op
    channels: tuple[int, ...]
    size: Callable[[int, int], Size] | None = None
    second: Callable[[int, int], Size] = same
    channels_last: bool = True

    def __str__(self) -> str:
        return f"{self.op}, {len(self.channels)} inputs"

    def output_size(self, size: Size) -> Size:
        """Return height and width of the output for a first input of `size`."""
        if self.size is not None:
            return self.size(*size)
        stride = getattr(self.op, "stride", 1)
        rows, columns = stride if isinstance(stride, tuple) else (stride, stride)
        return -(-size[0] // rows), -(-size[1] // columns)

    def module(self) -> nn.Module:
        """Build the operator's module, with the same weights each time."""
        torch.manual_seed(0)
        return self.op.build(self.channels)

    def inputs(self, size: Size, batch: int = 1) -> tuple[Tensor, ...]:
        """Make the same random inputs each time, the first of them (batch, channels[0], *size)."""
        generator = torch.Generator().manual_seed(1)
        sizes = [size, self.second(*size), *[size] * len(self.channels)]
        return tuple(
            torch.randn(batch, channels, *size, generator=generator)
            for channels, size in zip(self.channels, sizes, strict=False)
        )


sizes = pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)], ids=str)


class OperatorDataConformance(Suite):
    """Checks of an operator as data, which also hold for a network's inputs."""

    subject = "case"
    case: ClassVar[OperatorCase]

    def test_files_know_it_by_its_kind(self, case: OperatorCase) -> None:
        """Fix: an entry point of the group `nasseg.ops`, named by the kind, in an installed package."""
        kind = type(case.op)
        assert operators().get(case.op.op) is kind, how_to_register(kind, ENTRY_POINTS, case.op.op)
        assert kind.model_fields["op"].default == case.op.op, "the kind must be the default of the field `op`"

    def test_json_holds_all_of_it(self, case: OperatorCase) -> None:
        """Fix: make every option a field of a JSON type, or one that pydantic converts; tuples instead of lists."""
        text = json.dumps(case.op.to_dict())
        loaded: Op = TypeAdapter(AnyOp).validate_json(text)
        assert loaded == case.op
        assert type(loaded) is type(case.op)
        assert hash(loaded) == hash(case.op)
        assert set(json.loads(text)) == set(type(case.op).model_fields)

    def test_it_never_changes(self, case: OperatorCase) -> None:
        """Fix: leave `model_config` frozen, as `Op` has it."""
        for field in type(case.op).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(case.op, field, getattr(case.op, field))

    def test_an_unknown_field_is_refused(self, case: OperatorCase) -> None:
        """Fix: leave `extra="forbid"` in `model_config`, as `Op` has it."""
        with pytest.raises(ValueError, match="not_a_field"):
            type(case.op).model_validate({**case.op.to_dict(), "not_a_field": 1})

    def test_a_wrong_number_of_inputs_is_refused(self, case: OperatorCase) -> None:
        """Fix: `arity`; `check` does the rest."""
        low, high = case.op.arity
        wrong = [low - 1] if low else []
        wrong += [] if high is None else [high + 1]
        for arity in wrong:
            with pytest.raises(ValueError, match=rf"^{case.op.op} has {arity} inputs, but must have (at least )?{low}"):
                case.op.check([4] * arity)


class OperatorConformance(OperatorDataConformance):
    """Checks of an operator as data, and of the module that it builds.

    class TestSqueezeExcite(OperatorConformance):
        case = OperatorCase(SqueezeExcite(), channels=(8,))
    """

    @sizes
    @pytest.mark.parametrize("batch", [1, 2])
    def test_the_output_has_the_channels_and_the_size_it_should(
        self, case: OperatorCase, size: Size, batch: int
    ) -> None:
        """Fix: channels as `out_channels_of` says; padding that gives ceil(size / stride) for odd sizes too."""
        expected = (batch, case.op.check(case.channels), *case.output_size(size))
        module = case.module()
        assert module.train()(*case.inputs(size, batch)).shape == expected
        assert module.eval()(*case.inputs(size, batch)).shape == expected
        with torch.device("meta"):
            on_meta = case.op.build(case.channels)
        assert on_meta(*(x.to("meta") for x in case.inputs(size, batch))).shape == expected

    def test_each_module_has_weights_of_its_own(self, case: OperatorCase) -> None:
        """Fix: make layers in `build`, not once for all; draw weights from PyTorch's global generator only."""
        first, second = case.module(), case.module()
        assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)

    @sizes
    def test_gradients_of_a_batch_of_one_are_finite(self, case: OperatorCase, size: Size) -> None:
        """Fix: no parameter that the output does not depend on, and no statistics of a single pixel."""
        inputs = [x.requires_grad_() for x in case.inputs(size)]
        module = case.module().train()
        output = module(*inputs)
        (output.square().sum() + 0 * sum(x.sum() for x in inputs)).backward()
        for name, tensor in [*enumerate(inputs), *module.named_parameters()]:
            assert tensor.grad is not None, name
            assert tensor.grad.isfinite().all(), name

    def test_evaluation_is_the_same_each_time(self, case: OperatorCase) -> None:
        """Fix: anything random or counted only while `self.training`."""
        module, inputs = case.module().eval(), case.inputs((6, 5))
        torch.testing.assert_close(module(*inputs), module(*inputs), rtol=0, atol=0)

    def test_channels_last_stays_so(self, case: OperatorCase) -> None:
        """Fix: no view or copy that gives the contiguous layout; it would slow down whatever follows."""
        if not case.channels_last:
            pytest.skip("it says that it does not keep this layout")
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in case.inputs((8, 6), batch=2)]
        module = case.module().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        assert module(*inputs).is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("training", [True, False])
    def test_inputs_stay_as_they_are(self, case: OperatorCase, training: bool) -> None:
        """Fix: nothing in place on an input, which other nodes read too."""
        inputs = case.inputs((6, 5))
        before = copy.deepcopy(inputs)
        case.module().train(training)(*inputs)
        for x, y in zip(inputs, before, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)

    def test_order_counts_unless_it_is_order_free(self, case: OperatorCase) -> None:
        """Fix: `order_free` true only if any order of the inputs gives the same result."""
        if case.op.order_free:
            module, inputs = case.module().eval(), case.inputs((5, 4))
            torch.testing.assert_close(module(*reversed(inputs)), module(*inputs))

    @torch.no_grad()
    def test_exported_for_any_size_it_gives_the_same_output(self, case: OperatorCase) -> None:
        """Fix: nothing in `forward` that depends on the values of tensors, or compares sizes (`ops.layers.known`)."""
        module = case.module().eval()
        exported = to_program(module, case.inputs((14, 11)), any_size=True).module()
        for size in ((14, 11), (7, 5)):
            torch.testing.assert_close(exported(*case.inputs(size)), module(*case.inputs(size)))

    def test_mixed_precision_computes_nearly_the_same(self, case: OperatorCase) -> None:
        """Fix: no function that refuses two number formats; sums and powers of large numbers in float32."""
        inputs = [x.requires_grad_() for x in case.inputs((8, 6), batch=2)]
        module = case.module().train()
        for layer in module.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        expected = module(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            output = module(*inputs).float()
        assert (output - expected).norm() <= 0.05 * expected.norm()
        (output.square().sum() + 0 * sum(x.sum() for x in inputs)).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    @torch.no_grad()
    def test_the_form_for_inference_gives_the_same_output(self, case: OperatorCase) -> None:
        """Fix: layers of PyTorch's for convolution and batch norm, so that one can be folded into the other."""
        module, inputs = _used(case), case.inputs((7, 5))
        torch.testing.assert_close(inference_form(module, inputs)(*inputs), module(*inputs))

    @torch.no_grad()
    def test_onnxruntime_gives_the_same_output(self, case: OperatorCase) -> None:
        """Fix: functions that the ONNX exporter knows, for any size; complex numbers, for one, have none there."""
        try:
            choose_backend("onnxruntime", torch.device("cpu"), "float32")
        except ValueError as missing:
            pytest.skip(str(missing))
        from onnxruntime import InferenceSession

        module, inputs = _used(case), case.inputs((14, 11))
        onnx = to_onnx(to_program(inference_form(module, inputs), inputs, any_size=True))
        session = InferenceSession(onnx, providers=["CPUExecutionProvider"])
        for size in ((14, 11), (7, 5)):
            given = case.inputs(size)
            named = {port.name: value.numpy() for port, value in zip(session.get_inputs(), given, strict=True)}
            (output,) = session.run(None, named)
            torch.testing.assert_close(torch.from_numpy(output), module(*given), rtol=1e-4, atol=1e-5)


def _used(case: OperatorCase) -> nn.Module:
    """Build the module as after training: in evaluation mode, with batch norms that have seen something."""
    module = case.module().train()
    module(*case.inputs((8, 6), batch=2))
    return module.eval()
