"""The operator library: every network of nasseg, handcrafted or found, is made of these and of nothing else."""

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, SerializeAsAny
from pydantic_core import PydanticKnownError

from nasseg.ops.attention import AttentionFusion, SelfAttention
from nasseg.ops.base import Op
from nasseg.ops.conv import Conv, SeparableConv, TransposedConv, atrous3x3, conv1x1, logits1x1
from nasseg.ops.fourier import GlobalFilter
from nasseg.ops.join import Activation, Add, Concat, Dropout, Gate, Identity, Input, Multiply, Resize, Zero
from nasseg.ops.pool import AveragePool, GlobalPool, MaxPool, PyramidPool, StripPool, image_pool
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
    "strip_pool": StripPool,
    "self_attention": SelfAttention,
    "global_filter": GlobalFilter,
    "inverted_residual": InvertedResidual,
    "basic_block": BasicBlock,
    "bottleneck": Bottleneck,
    "stdc_module": StdcModule,
    "resize": Resize,
    "concat": Concat,
    "add": Add,
    "multiply": Multiply,
    "gate": Gate,
    "attention_fusion": AttentionFusion,
    "activation": Activation,
    "dropout": Dropout,
    "identity": Identity,
    "zero": Zero,
}
"""The library's own operators by kind; a new one is one line here."""

ENTRY_POINTS = "nasseg.ops"
"""Group of entry points in which installed packages give operators of their own, each named by its kind."""


def operators() -> dict[str, type[Op]]:
    """Every operator by its kind: the library's own, then those of installed packages."""
    return OPS | {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)} | OPS


@cache
def _operator(kind: str) -> type[Op]:
    return OPS[kind] if kind in OPS else operators()[kind]


def _as_operator(value: object) -> Op:
    """An operator as it is; from a mapping, one of the kind that its field `op` names. A file imports nothing else."""
    if isinstance(value, Op):
        return value
    if not isinstance(value, dict):
        raise PydanticKnownError("model_type", {"class_name": "Op"})
    if "op" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'op'"})
    kind = str(value["op"])
    try:
        found = _operator(kind)
    except KeyError:
        known = ", ".join(f"'{name}'" for name in operators())
        tag = kind.encode("ascii", "backslashreplace").decode()
        context = {"discriminator": "'op'", "tag": tag, "expected_tags": known}
        raise PydanticKnownError("union_tag_invalid", context) from None
    return found.model_validate(value)


if TYPE_CHECKING:
    AnyOp = Op
else:
    AnyOp = Annotated[SerializeAsAny[Op], BeforeValidator(_as_operator)]
    """The type of a pydantic field that holds any operator: of the library, or of an installed package."""


__all__ = [
    "ENTRY_POINTS",
    "OPS",
    "Activation",
    "Add",
    "AnyOp",
    "AttentionFusion",
    "AveragePool",
    "BasicBlock",
    "Bottleneck",
    "Concat",
    "Conv",
    "Dropout",
    "Gate",
    "GlobalFilter",
    "GlobalPool",
    "Identity",
    "Input",
    "InvertedResidual",
    "MaxPool",
    "Multiply",
    "Op",
    "PyramidPool",
    "Resize",
    "SelfAttention",
    "SeparableConv",
    "StdcModule",
    "StripPool",
    "TransposedConv",
    "Zero",
    "atrous3x3",
    "conv1x1",
    "image_pool",
    "logits1x1",
    "operators",
]
