"""Predictions as files: colour masks, overlays and a legend; label images for a benchmark's server; videos."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nasseg.data.formats.layout import SUFFIXES
from nasseg.graph import write_atomically
from nasseg.report.figures.figure import save
from nasseg.report.figures.pictures import Palette, colour_mask, legend, overlay

VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
LEGEND_FILE = "legend.png"

CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The label of each class in the images that Cityscapes' server takes (arXiv 1604.01685, and its labels.py)."""


def cityscapes_labels(classes: tuple[str, ...]) -> tuple[int, ...]:
    """Return Cityscapes' labels of the classes; raises `ValueError` if it has none of that name."""
    unknown = [name for name in classes if name not in CITYSCAPES]
    if unknown:
        raise ValueError(
            f"Cityscapes has no class {unknown[0]!r}, so nothing can be submitted; it has {', '.join(CITYSCAPES)}"
        )
    return tuple(CITYSCAPES[name] for name in classes)


def save_prediction(stem: Path, image: Tensor, mask: Tensor, palette: Palette) -> None:
    """Write STEM.png, class indices in the classes' colours, and STEM-overlay.jpg, those over the image."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    _save(stem.parent / f"{stem.name}.png", colour_mask(mask, palette), "PNG")
    _save(stem.parent / f"{stem.name}-overlay.jpg", overlay(image, mask, palette), "JPEG", quality=92)


def save_labels(stem: Path, mask: Tensor, labels: tuple[int, ...]) -> None:
    """Write STEM.png with the label of each pixel's class, in grey."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    table = torch.zeros(256, dtype=torch.uint8)
    table[: len(labels)] = torch.tensor(labels, dtype=torch.uint8)
    _save(stem.parent / f"{stem.name}.png", Image.fromarray(table[mask.long()].numpy()), "PNG")


def save_legend(folder: Path, palette: Palette) -> None:
    """Write the names of the classes beside their colours."""
    save(legend(palette), folder / LEGEND_FILE)


def _save(path: Path, picture: Image.Image, format: str, **options: Any) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    write_atomically(path, buffer.getvalue())


def segment_video(
    source: Path, target: Path, segment: Callable[[Tensor], Tensor], palette: Palette
) -> Iterator[tuple[int, int]]:
    """Lay predictions over every frame of a video, written to `target`; yield the frames done, and of how many or 0.

    Raises `ValueError` if the package for videos is missing, or the file is none.
    """
    try:
        import av
    except ImportError:
        raise ValueError(f"{source} needs the package av; pip install 'nasseg[video]'") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}")
    try:
        with av.open(str(source)) as given, av.open(str(unfinished), "w", format="mp4") as made:
            (pictures, *_) = given.streams.video
            stream = made.add_stream("mpeg4", rate=Fraction(pictures.average_rate or 25))
            stream.bit_rate = 8_000_000
            stream.width, stream.height = pictures.width // 2 * 2, pictures.height // 2 * 2  # its colours are by twos
            for number, frame in enumerate(given.decode(pictures), start=1):
                image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                shown = np.asarray(overlay(image, segment(image), palette))
                shown = np.ascontiguousarray(shown[: stream.height, : stream.width])
                for packet in stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")):
                    made.mux(packet)
                yield number, pictures.frames
            for packet in stream.encode():
                made.mux(packet)
        unfinished.replace(target)
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{source} is not a readable video ({error})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def find_files(paths: list[Path]) -> dict[Path, Path]:
    """Find images and videos, also in folders and those below, each with the place of its result below the results'.

    Raises `ValueError` if there is nothing, or two files would have one place.
    """
    endings = (*SUFFIXES, *VIDEO_SUFFIXES)
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file; give images ({', '.join(SUFFIXES)}), videos, or folders")
        if not path.is_dir():
            found[path] = Path(path.stem)
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.is_file() and file.suffix.lower() in endings and not hidden:
                found[file] = file.relative_to(path).with_suffix("")
    if not found:
        raise ValueError(f"{', '.join(map(str, paths))}: no images or videos ({', '.join(endings)}) there")
    _check_distinct(found)
    return found


def _check_distinct(found: Mapping[Path, Path]) -> None:
    by_place: dict[Path, Path] = {}
    for file, place in found.items():
        if by_place.setdefault(place, file) != file:
            raise ValueError(
                f"{by_place[place]} and {file} would both give {place}.png; rename one, or use two folders with --out"
            )
