"""`nasseg predict`: colour masks and overlays of images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from nasseg.cli.evaluate import Model
from nasseg.cli.options import Config, Device, say


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", metavar="IMAGE…")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    device: Device = "auto",
    config: Config = None,
) -> None:
    """Segment images: NAME.png holds class indices in the classes' colours, NAME-overlay.jpg the image under them."""
    import torch

    from nasseg.data import normalise
    from nasseg.data.folder import read_image
    from nasseg.graph import write_atomically
    from nasseg.report.figures.pictures import Palette, colour_mask, overlay
    from nasseg.train.device import choose_device, threads_for
    from nasseg.train.model import load_model

    files = _image_files(images)
    _check_results(files, out)
    network, provenance = load_model(model)
    target = choose_device(device)
    torch.set_num_threads(threads_for(target))
    network.to(target)
    data = provenance.data
    palette = Palette(classes=data.classes, colours=data.palette, ignore_index=data.ignore_index)
    for file in files:
        image = read_image(file)
        with torch.inference_mode():
            logits = network(normalise(image[None].to(target)))
        mask = logits.argmax(1)[0].to("cpu", torch.uint8)
        out.mkdir(parents=True, exist_ok=True)
        for name, picture, options in (
            (f"{file.stem}.png", colour_mask(mask, palette), {}),
            (f"{file.stem}-overlay.jpg", overlay(image, mask, palette), {"quality": 92}),
        ):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG" if name.endswith(".png") else "JPEG", **options)
            write_atomically(out / name, buffer.getvalue())
    say(f"{len(files)} images segmented into {out}")


def _check_results(files: list[Path], out: Path) -> None:
    """Raise `ValueError` if a result would overwrite another one, or an image."""
    by_stem: dict[str, Path] = {}
    for file in files:
        if by_stem.setdefault(file.stem, file) != file:
            raise ValueError(
                f"{by_stem[file.stem]} and {file} would both give {out / file.stem}.png; segment them into two folders"
            )
        if file.resolve() == (out / f"{file.stem}.png").resolve():
            raise ValueError(f"{file} would be overwritten by its own result; name another folder with --out")


def _image_files(paths: list[Path]) -> list[Path]:
    endings = {".jpg", ".jpeg", ".png"}
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file; give images ({', '.join(sorted(endings))}) or folders of them")
        files += sorted(f for f in path.iterdir() if f.suffix.lower() in endings) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{', '.join(map(str, paths))}: no images ({', '.join(sorted(endings))}) there")
    return files
