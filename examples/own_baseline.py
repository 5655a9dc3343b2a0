"""A handcrafted network of one's own: a small encoder and decoder, written to a file that every command takes.

Run from the repository's root:

    python -m examples.own_baseline
    nasseg describe small.json
    nasseg retrain small.json --data streets

A baseline is a function. To call yours by name, give it as an entry point in your package's `pyproject.toml`:

    [project.entry-points."nasseg.baselines"]
    small = "examples.own_baseline:small"
"""

from nasseg.graph import Architecture, Builder, save
from nasseg.ops import Add, Conv, InvertedResidual, Resize, conv1x1, logits1x1


def small(num_classes: int = 19, *, width: int = 16, in_channels: int = 3) -> Architecture:
    """Build four inverted residuals down to stride 16, and their sum with the features at stride 4."""
    g = Builder("small")
    image = g.input(in_channels)
    x = g.add("backbone.stem", Conv(out_channels=width, stride=2), image)
    levels = []
    for level, stride in enumerate((2, 2, 2, 1)):
        block = InvertedResidual(out_channels=width * (level + 1), stride=stride)
        x = g.add(f"backbone.block{level}", block, x)
        levels.append(x)
    with g.scope("decoder"):
        fine = g.add("fine", conv1x1(4 * width), levels[0])
        x = g.add("fused", Add(), g.add("upsample", Resize(), x, fine), fine)
    with g.scope("head"):
        logits = g.add("logits", logits1x1(num_classes), x)
        return g.build(g.add("upsample", Resize(), logits, image))


if __name__ == "__main__":
    save(small(num_classes=13), "small.json")
