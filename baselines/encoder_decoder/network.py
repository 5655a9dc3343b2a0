"""From a design to its architecture."""

from __future__ import annotations

from baselines.backbones import BACKBONES
from baselines.backbones.shape import kept
from baselines.encoder_decoder.contexts import CONTEXTS
from baselines.encoder_decoder.decoder import CONVOLUTIONS, decode
from baselines.encoder_decoder.design import Design
from baselines.heads import classifier
from nasseg.graph import Architecture, Builder
from nasseg.ops import Resize


def encoder_decoder(name: str, design: Design, classes: int) -> Architecture:
    """Build the network of a design; (N, classes, H, W) logits have the size of the image before it is resized."""
    g = Builder(name)
    image = g.input()
    scaled = image if design.input_scale == 1 else g.add("input_scale", Resize(factor=design.input_scale), image)
    features = BACKBONES[design.backbone](g, scaled, design.output_stride, shape=design.shape)
    with g.scope("context"):
        width = kept(design.context_width, design.width)
        x = CONTEXTS[design.context](g, features.output, width, design)
    with g.scope("decoder"):
        x = decode(g, x, dict(features.taps), design)
    with g.scope("head"):
        if design.upsampling > 1:
            x = g.add("enlarge", Resize(factor=design.upsampling), x)
        if design.final != "none":
            x = g.add("conv", CONVOLUTIONS[design.final](g.channels(x)), x)
    return g.build(classifier(g, x, image, classes))
