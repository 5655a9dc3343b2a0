"""`nasseg predict`: colour masks and overlays of images and videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nasseg.cli.evaluate import Flip, Model, Scales, Window
from nasseg.cli.options import Config, Device, optional_size, parse_numbers, say

if TYPE_CHECKING:
    from rich.progress import Progress


def predict(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(help="Images and videos, or folders of them and of further folders.", metavar="IMAGE…"),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    submission: Annotated[
        Literal["cityscapes"] | None, typer.Option(help="Write label images as that benchmark's server takes them.")
    ] = None,
    scales: Scales = "1",
    flip: Flip = False,
    window: Window = None,
    device: Device = "auto",
    config: Config = None,
) -> None:
    """Segment images of any size: NAME.png holds class indices in the classes' colours, NAME-overlay.jpg both.

    A video gives NAME-overlay.mp4. legend.png names the colours.
    """
    import torch

    from nasseg.data.folder import read_image
    from nasseg.export.model import Model as TrainedModel
    from nasseg.report import predictions
    from nasseg.report.figures.pictures import Palette
    from nasseg.train.device import choose_device, threads_for

    wanted, windows = parse_numbers(scales), optional_size(window)
    files = predictions.find_files(images)
    _check_overwrites_none(files, out)
    torch.set_num_threads(threads_for(choose_device(device)))
    trained = TrainedModel.load(model, device)
    labels = predictions.cityscapes_labels(trained.classes) if submission else None
    data = trained.provenance.data
    palette = Palette(classes=data.classes, colours=data.palette, ignore_index=data.ignore_index)

    def segment(image: torch.Tensor) -> torch.Tensor:
        return trained.segment(image, wanted, flip, windows)

    with _progress() as progress:
        whole = progress.add_task(f"{len(files)} files", total=len(files))
        for file, place in files.items():
            if file.suffix.lower() in predictions.VIDEO_SUFFIXES:
                frames = progress.add_task(file.name, total=None)
                target = out / place.parent / f"{place.name}-overlay.mp4"
                for done, total in predictions.segment_video(file, target, segment, palette):
                    progress.update(frames, completed=done, total=total or None)
            else:
                image = read_image(file)
                mask = segment(image)
                if labels is None:
                    predictions.save_prediction(out / place, image, mask, palette)
                else:
                    predictions.save_labels(out / place, mask, labels)
            progress.advance(whole)
    if labels is None:
        predictions.save_legend(out, palette)
    say(f"{len(files)} file{'s' * (len(files) > 1)} segmented into {out}")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show bars on a terminal, with the time that is left."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _check_overwrites_none(files: dict[Path, Path], out: Path) -> None:
    """Raise `ValueError` if a result would overwrite an image, or another result."""
    from nasseg.report.predictions import LEGEND_FILE

    given = {file.resolve(): file for file in files}
    for file, place in files.items():
        if (legend := Path(f"{place}.png")) == Path(LEGEND_FILE):
            raise ValueError(f"{file} would give {out / legend}, where the colours are named; rename it")
        for ending in (".png", "-overlay.jpg"):
            lost = given.get((out / f"{place}{ending}").resolve())
            if lost is not None:
                whose = "its own result" if lost == file else f"the result of {file}"
                raise ValueError(f"{lost} would be overwritten by {whose}; name another folder with --out")
