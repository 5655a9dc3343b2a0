"""The model card beside an exported file: what it is for, what it takes and gives, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nasseg.export.agreement import Agreement
from nasseg.export.options import ExportInfo

if TYPE_CHECKING:
    from nasseg.cost.latency import Latency

USE = """```python
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}")
image = np.asarray(Image.open("photo.jpg").convert("RGB"){resize}).transpose(2, 0, 1)[None]
{normalise}(output,) = session.run(None, {{"image": image}})
mask = output[0]{argmax}
```
"""
NORMALISE = """mean, deviation = (np.array(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
image = ((image / 255 - mean) / deviation).astype(np.float32)
"""
SIZES = {
    "fixed": "one image of {size}",
    "any": "one image of any size",
    "resized": "one image of any size, which is resized to {size} inside",
}


def card(
    file: str,
    info: ExportInfo,
    agreements: Sequence[Agreement],
    latencies: Mapping[str, Latency],
    mious: Mapping[str, float],
) -> str:
    """Write the card, in Markdown. `latencies` and `mious` are by what they were measured of."""
    options, origin = info.options, info.provenance
    data = origin.data
    size = "x".join(map(str, options.size))
    gives = "class indices, uint8 (1, H, W)" if options.argmax else f"logits, float32 (1, {len(data.classes)}, H, W)"
    takes = "uint8 in RGB" if options.normalise else "float32, normalised with ImageNet's mean and deviation"
    lines = [
        f"# {info.architecture}: semantic segmentation into {len(data.classes)} classes",
        "",
        f"`{file}`: {options.made.description}. Exported by nasseg {origin.versions.get('nasseg', '')}".rstrip() + ".",
        "",
        f"- Takes `image`, {SIZES[options.images].format(size=size)}: {takes}, (1, 3, H, W).",
        f"- Gives {gives}.",
        f"- {info.params / 1e6:.2f} M parameters, {info.madds / 1e9:.2f} G multiply–adds at {size}.",
        f"- Classes, from index 0: {', '.join(data.classes)}.",
        "",
    ]
    if options.made.suffix == ".onnx":
        by_width = f"({options.size[1]}, {options.size[0]})"
        fixed = f".resize({by_width}, Image.Resampling.BILINEAR)" if options.images == "fixed" else ""
        argmax = "" if options.argmax else ".argmax(axis=0)"
        normalise = "" if options.normalise else NORMALISE
        lines.append(USE.format(file=file, resize=fixed, argmax=argmax, normalise=normalise))
    lines += [
        "## Training",
        "",
        f"On the split `{data.train_split}` of `{data.spec.rpartition('/')[2]}`, {origin.budget or 'of some length'},"
        f" seed {origin.seed}, from {'pretrained' if origin.weights else 'random'} weights. It knows what that data"
        " shows: other cameras, weather or countries need a test of their own.",
        "",
        "## Measured",
        "",
        *(f"- mIoU, {name}: {miou:.4f}" for name, miou in {**origin.miou, **mious}.items()),
        *(f"- Against PyTorch in float32, {agreement}" for agreement in agreements),
        *(
            f"- {name}: {latency.median_ms:.2f} ms an image of {size} ({latency.device}, {latency.threads} "
            f"thread{'s' * (latency.threads > 1)}, {latency.backend} {latency.backend_version}, {latency.dtype})"
            for name, latency in latencies.items()
        ),
        "",
    ]
    return "\n".join(lines)
