"""Exporting a trained network: to a file, checked, timed and, where numbers are rounded, scored."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nasseg.cost.latency import Latency, measure_latency
from nasseg.data import Split, evaluation_batches
from nasseg.export.agreement import IMAGES, TOLERANCE, Agreement, agreements, as_taken, some
from nasseg.export.card import card
from nasseg.export.files import ExportedNetwork, OnnxNetwork, ProgramNetwork, with_info
from nasseg.export.int8 import quantised
from nasseg.export.latency import CPU, measure_exported
from nasseg.export.options import ExportInfo, ExportOptions
from nasseg.export.shipped import onnx_of, program_of
from nasseg.graph import write_atomically
from nasseg.network import Network, Segmenter
from nasseg.train.evaluate import evaluate
from nasseg.train.provenance import Provenance

Say = Callable[[str], object]


@dataclass(frozen=True)
class Export:
    """An exported file with its card, and what was measured: latencies and mIoU are of `PyTorch` and of the format."""

    path: Path
    card: Path
    agreements: tuple[Agreement, ...]
    latencies: dict[str, Latency]
    mious: dict[str, float]
    takes_shown: bool
    """Whether it takes the images that it was compared on as they are."""


def export(
    network: Network,
    provenance: Provenance,
    options: ExportOptions,
    path: Path,
    *,
    shown: Split,
    calibration: Split | None = None,
    calibration_images: int = 64,
    say: Say = lambda _: None,
) -> Export:
    """Write a trained network and its model card to `path`, after comparing it with PyTorch on images of `shown`.

    A format that rounds is also scored on all of `shown`, if it takes its images. `calibration` is for int8 alone, and
    gives the ranges of values. Nothing is written if an exact format does not agree with PyTorch; that, and what cannot
    be exported, raises `ValueError`.
    """
    options.check_packages()
    description = network.architecture.describe(options.size)
    info = ExportInfo(
        architecture=network.architecture.name,
        params=description.params,
        madds=description.madds,
        options=options,
        provenance=provenance,
    )
    say(f"exporting {info.architecture} as {options.made.description}")
    content, exported = _made(network, info, path, calibration or shown, calibration_images, say)
    found, images = [], some(shown, IMAGES)
    takes_shown = options.images != "fixed" or all(tuple(image.shape[-2:]) == options.size for image in images)
    if not takes_shown:
        height, width = options.size
        say(f"{shown.name} has images of other sizes than {height}x{width}, all that the file takes (--images any)")
    for agreement in agreements(network, exported, images):
        found.append(agreement)
        say(f"against PyTorch, {agreement}")
        _refuse_if_wrong(agreement, options)
    latencies = {
        "PyTorch": measure_latency({"": network}, options.size, CPU, dtype="float32")[""],
        options.format: measure_exported({"": exported}, options.size)[""],
    }
    mious = _scores(network, exported, shown, say) if takes_shown and not options.made.exact else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    beside = path.with_suffix(".md")
    write_atomically(beside, card(path.name, info, found, latencies, mious))
    return Export(path, beside, tuple(found), latencies, mious, takes_shown)


def _made(
    network: Network, info: ExportInfo, path: Path, calibration: Split, images: int, say: Say
) -> tuple[bytes, ExportedNetwork]:
    """Export to the content of a file, and open that content."""
    options = info.options
    if options.made.suffix == ".pt2":
        buffer = io.BytesIO()
        torch.export.save(program_of(network, options), buffer)
        buffer.seek(0)
        return buffer.getvalue(), ProgramNetwork(torch.export.load(buffer), info)
    onnx = onnx_of(network, options)
    if options.made.int8:
        chosen = some(calibration, images)
        say(f"calibrating on {len(chosen)} images of {calibration.name}")
        onnx = quantised(onnx, (as_taken(image, options) for image in chosen))
    content = with_info(onnx, info)
    return content, OnnxNetwork(content, str(path))


def _refuse_if_wrong(agreement: Agreement, options: ExportOptions) -> None:
    off = agreement.largest_difference
    if options.made.exact and off is not None and off > TOLERANCE * max(1.0, agreement.largest_logit):
        raise ValueError(f"the file does not compute what PyTorch does: {agreement}; please report this network")


def _scores(network: Network, exported: ExportedNetwork, split: Split, say: Say) -> dict[str, float]:
    """Score both on a split; nothing if the file does not take the split's images."""
    options = exported.info.options
    sizes = (tuple(split[index].mask.shape) for index in range(len(split)))
    if options.images == "fixed" and any(size != options.size for size in sizes):
        say(f"not scored on {split.name}, which has images of other sizes (--images any)")
        return {}
    say(f"scoring both on {len(split)} images of {split.name}")
    segmenters: dict[str, Segmenter] = {"PyTorch": network, options.format: exported}
    return {f"{name}, {split.name}": _miou(segmenter, split) for name, segmenter in segmenters.items()}


def _miou(segmenter: Segmenter, split: Split) -> float:
    batches = (batch for batch, _ in evaluation_batches(split, 1))
    return evaluate(segmenter, batches, len(split.classes), split.ignore_index, CPU, amp=False).miou
