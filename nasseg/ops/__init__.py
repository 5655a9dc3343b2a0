"""The operator library: every network of nasseg, handcrafted or found, is made of these and of nothing else."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from nasseg.ops.base import Op
from nasseg.ops.conv import Conv, SeparableConv, TransposedConv, atrous3x3, conv1x1, logits1x1
from nasseg.ops.join import Activation, Add, Concat, Dropout, Gate, Identity, Input, Multiply, Resize, Zero
from nasseg.ops.pool import AveragePool, GlobalPool, MaxPool, PyramidPool, image_pool
from nasseg.ops.residual import BasicBlock, Bottleneck, InvertedResidual
from nasseg.ops.stdc import StdcModule

OPS: dict[str, type[Op]] = {
    "input": Input,
    "conv": Conv,
    "separable_conv": SeparableConv,
    "transposed_conv": TransposedConv,
    "average_pool": AveragePool,
    "max_pool": MaxPool,
    "pyramid_pool": PyramidPool,
    "global_pool": GlobalPool,
    "inverted_residual": InvertedResidual,
    "basic_block": BasicBlock,
    "bottleneck": Bottleneck,
    "stdc_module": StdcModule,
    "resize": Resize,
    "concat": Concat,
    "add": Add,
    "multiply": Multiply,
    "gate": Gate,
    "activation": Activation,
    "dropout": Dropout,
    "identity": Identity,
    "zero": Zero,
}
"""Every operator by its kind; a new one is one line here."""


if TYPE_CHECKING:
    AnyOp = Op
else:
    AnyOp = Annotated[Union[tuple(OPS.values())], Field(discriminator="op")]  # noqa: UP007
    """The type of a pydantic field that holds any operator of the library."""


__all__ = [
    "OPS", "Activation", "Add", "AnyOp", "AveragePool", "BasicBlock", "Bottleneck", "Concat", "Conv", "Dropout", "Gate",
    "GlobalPool", "Identity", "Input", "InvertedResidual", "MaxPool", "Multiply", "Op", "PyramidPool", "Resize",
    "SeparableConv", "StdcModule", "TransposedConv", "Zero", "atrous3x3", "conv1x1", "image_pool", "logits1x1",
]  # fmt: skip
