"""Handcrafted heads as designs, each on any backbone; their widths are the papers'."""

from __future__ import annotations

from baselines.encoder_decoder.design import BackboneName, Design, Level
from baselines.encoder_decoder.network import encoder_decoder
from nasseg.graph import Architecture

DESIGNS: dict[str, Design] = {
    # ASPP without a decoder; arXiv 1706.05587, §3.3, separable as in 1802.02611
    "aspp": Design(output_stride=16, context="aspp"),
    # arXiv 1802.02611, §3.1: 48 low-level channels, two separable 3×3
    "deeplabv3plus": Design(
        output_stride=16,
        context="aspp",
        level4=Level(fusion="concat", width=256, lateral_share=48 / 256),
        refine="separable3x3",
        repeats=2,
    ),
    # arXiv 1905.02244, §6.4. The sum of two maps' logits is a 1×1 convolution of their concatenation.
    "lraspp": Design(
        output_stride=16, context="gate", context_width=128, level8=Level(fusion="concat", lateral="none")
    ),
    # arXiv 1612.03144, §3, with batch norm; 3×3 convolutions on the way down instead of beside it; maps added up as in
    # 1901.02446, §3.1
    "fpn": Design(
        level16=Level(fusion="add", width=256),
        level8=Level(fusion="add", width=256),
        level4=Level(fusion="add", width=256),
        refine="conv3x3",
        merge="sum",
    ),
    # The expanding path of arXiv 1505.04597 on a pretrained encoder
    "unet_decoder": Design(
        level16=Level(fusion="concat", lateral="none", width=256),
        level8=Level(fusion="concat", lateral="none", width=128),
        level4=Level(fusion="concat", lateral="none", width=64),
        refine="conv3x3",
        repeats=2,
    ),
    # arXiv 2104.13188, §3.2: the 3×3 convolution after each sum, before it is enlarged
    "context_path": Design(
        context="attention_refinement",
        context_width=128,
        level16=Level(fusion="add", lateral="attention_refinement", width=128),
        level8=Level(fusion="feature_fusion", lateral="none", width=256),
        refine="conv3x3",
        final="conv3x3",
    ),
    # arXiv 2204.02681, §3: widths of the decoder fall towards the image
    "ppliteseg": Design(
        context="simple_pyramid_pooling",
        context_width=128,
        level16=Level(fusion="spatial_attention", lateral="conv3x3", width=64),
        level8=Level(fusion="spatial_attention", lateral="conv3x3", width=32),
        refine="conv3x3",
        final="conv3x3",
    ),
}
"""By name, on MobileNetV2."""


def _build(name: str, backbone: BackboneName, width: float, classes: int) -> Architecture:
    """Build a head; `width` multiplies its channels and, below 1, those of the backbone."""
    design = DESIGNS[name].model_copy(update={"backbone": backbone, "width": width})
    return encoder_decoder(f"{name}-{backbone}", design, classes)


def aspp(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """ASPP without a decoder (arXiv 1706.05587, §3.3), separable as in DeepLabV3+."""
    return _build("aspp", backbone, width, num_classes)


def deeplabv3plus(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """DeepLabV3+ (arXiv 1802.02611, §3): ASPP, and a decoder with 48 low-level channels."""
    return _build("deeplabv3plus", backbone, width, num_classes)


def lraspp(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """LR-ASPP (arXiv 1905.02244, §6.4): a gated map at stride 16, logits at stride 8."""
    return _build("lraspp", backbone, width, num_classes)


def fpn(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """A feature pyramid network (arXiv 1612.03144, §3), its maps added up as in semantic FPN."""
    return _build("fpn", backbone, width, num_classes)


def unet_decoder(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """U-Net's expanding path (arXiv 1505.04597, §2) on a pretrained backbone."""
    return _build("unet_decoder", backbone, width, num_classes)


def context_path(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """STDC's context path and feature fusion (arXiv 2104.13188, §3.2) on a pretrained backbone."""
    return _build("context_path", backbone, width, num_classes)


def ppliteseg(num_classes: int = 19, *, backbone: BackboneName = "mobilenetv2", width: float = 1.0) -> Architecture:
    """PP-LiteSeg (arXiv 2204.02681, §3): simple pyramid pooling, attention fusion, falling widths."""
    return _build("ppliteseg", backbone, width, num_classes)
