"""A space whose operators' shapes have no end: re-shaped backbones at a scale of the image, under random decoders.

    nasseg profile --space benchmarks.reshaped:Reshaped --size 180x240 --classes 11 --out TABLE.json

Hardly two of its networks share an operator beyond the first, so that a latency table must predict what was never
measured.
"""

import random
from collections.abc import Sequence

from baselines.backbones import BACKBONES, Shape, Stage
from nasseg.graph import Architecture, Builder
from nasseg.ops import Add, Concat, Conv, Op, Resize, SeparableConv, conv1x1, image_pool, logits1x1
from nasseg.space import Choice, Decide, Space

STAGES = {"mobilenetv2": (1, 2, 3, 4, 3, 3, 1), "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1), "resnet18": (2, 2, 2, 2)}
"""Blocks in each stage of the published backbone."""
POINTS = 1_000_000


class Drawn(Choice):
    number: int


class Reshaped(Space[Drawn]):
    """Each number draws a network: backbone, its shape, output stride, scale of the image, and a top-down decoder."""

    def decisions(self, decide: Decide) -> None:
        """Take the number."""
        decide.ordered("number", range(POINTS))

    def references(self) -> dict[str, Drawn]:
        """Return one point; the networks mean nothing."""
        return {"first": Drawn(number=0)}

    def architecture(self, choice: Drawn, classes: int) -> Architecture:
        """Draw the network of the number."""
        rng = random.Random(f"reshaped {choice.number}")
        g = Builder(f"reshaped-{choice.number}")
        image = g.input()
        scale = rng.choice([0.5, 0.625, 0.75, 0.875, 1.0])
        scaled = image if scale == 1 else g.add("scale.image", Resize(factor=scale), image)
        backbone = rng.choice(list(STAGES))
        shape = Shape(stages=tuple(_stage(rng, backbone, blocks) for blocks in STAGES[backbone]))
        taps = BACKBONES[backbone](g, scaled, rng.choice([16, 32]), shape=shape).taps
        strides = [stride for stride in sorted(taps) if stride >= rng.choice([4, 4, 8])]
        x = _decoder(g, rng, [taps[stride] for stride in strides])
        logits = g.add("head.logits", logits1x1(classes), x)
        return g.build(g.add("head.upsample", Resize(), logits, image))


def _stage(rng: random.Random, backbone: str, blocks: int) -> Stage:
    expands = backbone != "resnet18" and blocks > 1
    return Stage(
        width=rng.choice([0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]),
        blocks=rng.randint(1, blocks),
        kernel=rng.choice([3, 3, 5, 7] if backbone != "resnet18" else [3, 3, 3, 5]),
        expansion=rng.choice([2, 3, 4, 6]) if expands else None,
        atrous=rng.random() < 0.15,
    )


def _decoder(g: Builder, rng: random.Random, taps: Sequence[str]) -> str:
    """Add a context and a top-down path over `taps`, the finest first."""
    *finer, x = taps
    if rng.random() < 0.5:
        pooled = g.add("decoder.pool", image_pool(_width(rng)), x)
        branch = g.add("decoder.context", _conv(rng, _width(rng)), x)
        x = g.add("decoder.with_pool", Concat(), pooled, branch)
    for place, tap in reversed(list(enumerate(finer))):
        fused = _width(rng)
        lateral = g.add(f"decoder.lateral{place}", conv1x1(fused), tap)
        if rng.random() < 0.5:
            x = g.add(f"decoder.project{place}", conv1x1(fused), x)
            fuse: Op = Add()
        else:
            fuse = Concat()
        up = g.add(f"decoder.up{place}", Resize(), x, lateral)
        x = g.add(f"decoder.fuse{place}", fuse, up, lateral)
        x = g.add(f"decoder.refine{place}", _conv(rng, _width(rng)), x)
    return x


def _width(rng: random.Random) -> int:
    return 8 * rng.randint(2, 24)


def _conv(rng: random.Random, width: int) -> Op:
    rate = rng.choice([1, 1, 1, 2, 3, 6])
    kernel = rng.choice([3, 3, 5, 7])
    return rng.choice(
        [
            conv1x1(width),
            SeparableConv(out_channels=width, kernel=kernel, rate=rate),
            Conv(out_channels=width, rate=rate),
        ]
    )
