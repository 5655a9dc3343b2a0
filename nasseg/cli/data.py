"""`nasseg data`: check a data set, and describe a folder of images and masks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasseg.cli.options import USER_ERROR, Json, print_json, say

if TYPE_CHECKING:
    from nasseg.data import Dataset, Split
    from nasseg.data.checking import Finding, Survey

SHOWN = 12
"""Samples on the contact sheet."""

app = typer.Typer(help="Check a data set, or describe a folder of images and masks.", no_args_is_help=True)


@app.command("check")
def check(
    data: Annotated[str, typer.Argument(help="NAME:PATH, or folder:PATH.", metavar="DATA")],
    train_split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to score on; 20% draws it from the other.")] = "val",
    out: Annotated[Path | None, typer.Option(help="Picture of images under their masks; NAME-check.png.")] = None,
    as_json: Json = False,
) -> None:
    """Read all of a data set: what is in it, which files are broken, and what looks like a mistake.

    Ends with exit code 2 if it cannot be trained on.
    """
    from nasseg.data import drawn_splits, open_dataset
    from nasseg.data.checking import Finding, findings, mistakes, survey
    from nasseg.report.figures.figure import check_suffix
    from nasseg.report.profile import ProfileBars

    if out is not None:
        check_suffix(out)
    dataset = open_dataset(data)
    train, val = drawn_splits(train_split, val_split)
    first = [name for name in (train, val) if name != "val" or name in dataset.splits()]
    names = [*first, *(name for name in dataset.splits() if name not in (*first, train_split))]
    surveyed: list[tuple[Split, Survey]] = []
    seen: set[str] = set()
    with ProfileBars() as bars:
        for name in names:
            split = dataset.split(name)
            samples = {split.sample_name(index) for index in range(len(split))}
            if name in first or not samples <= seen:  # else all of it has been read
                surveyed.append((split, survey(split, bars.show)))
            seen |= samples
    compared, others = surveyed[: len(first)], surveyed[len(first) :]
    found = [*findings(compared), *(finding for other in others for finding in findings([other]))]
    found += mistakes(dataset, surveyed)
    if val not in first:
        found.append(Finding("there is no split 'val': draw one with --val-split 20%"))
    sheet = _draw(dataset, surveyed, out or Path(f"{dataset.name}-check.png"))
    if as_json:
        print_json(_document(dataset, surveyed, found, sheet))
    else:
        _print(dataset, surveyed, found)
        if sheet is not None:
            say(f"images under their masks: {sheet}")
    if any(finding.is_error for finding in found):
        raise typer.Exit(USER_ERROR)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="The folder with images and masks.", metavar="FOLDER")],
    classes: Annotated[str | None, typer.Option(help="Names of the classes in order, joined by commas.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a dataset.json that is there.")] = False,
) -> None:
    """Write the dataset.json of a folder from what its images and masks look like."""
    from nasseg.data import FolderDataset
    from nasseg.data.checking.draft import as_json, draft
    from nasseg.data.formats.description import FILE, described
    from nasseg.graph import write_atomically

    path = folder / FILE
    if path.exists() and not force:
        raise ValueError(f"{path} exists already; edit it, or write over it with --force")
    content, seen = draft(folder.expanduser().resolve())
    given = content["classes"]
    if classes is not None:
        names = [name.strip() for name in classes.split(",")]
        if len(names) != len(given):
            raise ValueError(f"--classes names {len(names)}, but the masks hold {len(given)}: {', '.join(given)}")
        content["classes"] = dict(zip(names, given.values(), strict=True)) if isinstance(given, dict) else names
    dataset = FolderDataset(folder, described(content, str(path)))
    write_atomically(path, as_json(content))
    for line in seen:
        say(line)
    say(f"classes: {', '.join(dataset.classes[:10])}{' …' if len(dataset.classes) > 10 else ''}")
    draw = "" if "val" in dataset.splits() else " --val-split 20%"
    say(f"wrote {path}; name the classes in it, then: nasseg data check {shlex.quote(f'folder:{folder}')}{draw}")


def _draw(dataset: Dataset, surveyed: list[tuple[Split, Survey]], out: Path) -> Path | None:
    """Write the contact sheet, of samples from all splits that were read; `None` if there are none."""
    from nasseg.report.figures import figure
    from nasseg.report.figures.contact_sheet import contact_sheet
    from nasseg.report.figures.pictures import Palette

    samples = []
    for split, survey in surveyed:
        good = [index for index in range(len(split)) if split.sample_name(index) not in survey.bad]
        share = max(1, SHOWN // len(surveyed))
        samples += [split[good[len(good) * place // share]] for place in range(min(share, len(good)))]
    if not samples:
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    palette = Palette(classes=dataset.classes, colours=dataset.palette, ignore_index=dataset.ignore_index)
    figure.save(contact_sheet(samples, palette), out)
    return out


def _document(
    dataset: Dataset, surveyed: list[tuple[Split, Survey]], found: list[Finding], sheet: Path | None
) -> dict[str, Any]:
    return {
        "data": dataset.spec,
        "layout": _layout(dataset),
        "classes": dataset.classes,
        "splits": {
            split.name: {
                "images": survey.images,
                "sizes": {f"{height}x{width}": count for (height, width), count in survey.sizes.most_common()},
                "class_shares": survey.class_shares(),
                "ignored_share": survey.ignored_share,
                "bad": {name: str(error) for name, error in survey.bad.items()},
            }
            for split, survey in surveyed
        },
        "errors": [finding.text for finding in found if finding.is_error],
        "warnings": [finding.text for finding in found if not finding.is_error],
        "sheet": None if sheet is None else str(sheet),
    }


def _layout(dataset: Dataset) -> str | None:
    from nasseg.data import FolderDataset
    from nasseg.data.checking.draft import described

    return described(dataset.files.layout) if isinstance(dataset, FolderDataset) else None


def _print(dataset: Dataset, surveyed: list[tuple[Split, Survey]], found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    from nasseg.errors import some_of

    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(dataset.spec)
    if layout := _layout(dataset):
        console.print(f"layout: {layout}")
    splits = Table("split", "images", "unusable", "sizes", box=None)
    for split, survey in surveyed:
        sizes = [f"{height}x{width} ({count})" for (height, width), count in survey.sizes.most_common()]
        splits.add_row(split.name, str(survey.images), str(len(survey.bad)), some_of(sizes, 3))
    console.print(splits)
    table = Table(
        "class", *(split.name for split, _ in surveyed), title="share of the pixels that are not ignored", box=None
    )
    shares = [survey.class_shares() for _, survey in surveyed]
    for name in dataset.classes:
        table.add_row(name, *(f"{share[name]:.2%}" if share[name] else "–" for share in shares))
    table.add_row("(ignored)", *(f"{survey.ignored_share:.2%}" for _, survey in surveyed))
    console.print(table)
    for finding in found:
        console.print(f"{'error' if finding.is_error else 'warning'}: {finding.text}")
    bad = {name: error for _, survey in surveyed for name, error in survey.bad.items()}
    if len(bad) > 1:
        console.print(f"{len(bad)} unusable images:")
        for error in bad.values():
            console.print(f"  {error}")
    if not found:
        console.print("nothing found that looks wrong")
