"""The space of encoder–decoder networks: all that decides their accuracy at a latency, on a pretrained backbone.

What is decided follows the effects that were measured: skips to small strides, where the trunk ends, widths and depths
per stage, the scale of the input, late kernels, how maps are fused, and last the context module.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, get_args

from pydantic import BeforeValidator, Field

from baselines.dense_prediction_cell import PUBLISHED
from baselines.encoder_decoder import DESIGNS, Design, encoder_decoder
from baselines.encoder_decoder.design import DECODER_STRIDES, STRIDES, BackboneName, Context, Fusion
from nasseg.graph import Architecture
from nasseg.space import Decide, Space
from search_spaces.dpc import canonical_cell, decide_cell

DIAL = tuple(round(1.04**step, 3) for step in range(-58, 18))
"""Multiples of all widths, from 0.1 to 2 in steps of 4 %."""
INPUT_SCALES = (0.5, 0.75, 1.0)
WIDTHS, DEPTHS, KERNELS, EXPANSIONS = (0.25, 0.5, 0.75, 1.0), (0.34, 0.67, 1.0), (3, 5, 7), (3, 6)
FIRST_KERNEL_STRIDE, FIRST_ATROUS_STRIDE = 8, 16
"""Larger kernels pay late in the trunk, on small maps; atrous ones later still."""
CONTEXT_WIDTHS, LEVEL_WIDTHS = (64, 128, 256), (32, 64, 128, 256)
LATERAL_SHARES = (48 / 256, 0.5, 1.0)
"""DeepLabV3+ has 48 lateral channels for 256."""


def _names(value: object) -> object:
    return tuple(value.split("+")) if isinstance(value, str) else value


class EncoderDecoder(Space[Design]):
    """Encoder–decoder networks on pretrained backbones: `encoder_decoder:backbones=mobilenetv2+efficientnet_lite0`."""

    backbones: Annotated[tuple[BackboneName, ...], BeforeValidator(_names), Field(min_length=1)] = ("mobilenetv2",)

    dial: ClassVar = "width"

    def decisions(self, decide: Decide) -> None:
        """Take the size, the backbone's shape, the context module, then the decoder from its deepest level."""
        decide.ordered("width", DIAL)
        decide.ordered("input_scale", INPUT_SCALES)
        decide.category("backbone", self.backbones)
        trunk_end = decide.ordered("trunk_end", (16, 32))
        decide.ordered("last_stages", (1, 2))
        output_strides = [stride for stride in (8, 16, 32) if stride <= trunk_end]
        output_stride = decide.ordered("output_stride", output_strides, given=trunk_end)
        for place, stride in enumerate(STRIDES):
            _trunk(decide, f"stages.{place}", stride)
        if decide.category("context", get_args(Context)) == "dense_prediction_cell":
            decide_cell(decide, "cell.branches", len(PUBLISHED.branches))
        decide.ordered("context_width", CONTEXT_WIDTHS)
        taken = [_level(decide, stride) for stride in DECODER_STRIDES if stride < output_stride]
        if any(taken):
            if decide.category("refine", ("none", "conv1x1", "conv3x3", "separable3x3")) != "none":
                decide.ordered("repeats", (1, 2))
            decide.category("merge", ("last", "sum"))
        decide.category("final", ("none", "conv3x3", "separable3x3"))
        decide.ordered("upsampling", (1, 2))

    def references(self) -> dict[str, Design]:
        """Return the handcrafted heads, DeepLabV3+ first, on the first of the backbones."""
        names = sorted(DESIGNS, key=lambda name: name != "deeplabv3plus")
        return {name: DESIGNS[name].model_copy(update={"backbone": self.backbones[0]}) for name in names}

    def canonical(self, choice: Design) -> Design:
        """Order the branches of a dense prediction cell."""
        cell = None if choice.cell is None else canonical_cell(choice.cell)
        return choice.model_copy(update={"cell": cell})

    def architecture(self, choice: Design, classes: int) -> Architecture:
        """Build the network of a design."""
        return encoder_decoder("encoder_decoder", choice, classes)


def _trunk(decide: Decide, stage: str, stride: int) -> None:
    """Decide what is kept of the backbone's stages at a stride."""
    decide.ordered(f"{stage}.width", WIDTHS)
    if stride > STRIDES[0]:
        decide.ordered(f"{stage}.depth", DEPTHS)
        decide.ordered(f"{stage}.expansion", EXPANSIONS)
    if stride >= FIRST_KERNEL_STRIDE:
        decide.ordered(f"{stage}.kernel", KERNELS)
    if stride >= FIRST_ATROUS_STRIDE:
        decide.category(f"{stage}.atrous", (False, True))


def _level(decide: Decide, stride: int) -> bool:
    """Decide how the decoder takes the map at a stride, and return whether it does."""
    level = f"level{stride}"
    fusion = decide.category(f"{level}.fusion", get_args(Fusion))
    if fusion == "none":
        return False
    joins = fusion in ("concat", "feature_fusion")
    laterals = ("conv1x1", "conv3x3", "attention_refinement")
    lateral = decide.category(f"{level}.lateral", ("none", *laterals) if joins else laterals, given=joins)
    decide.ordered(f"{level}.width", LEVEL_WIDTHS)
    if joins and lateral != "none":
        decide.ordered(f"{level}.lateral_share", LATERAL_SHARES)
    return True
