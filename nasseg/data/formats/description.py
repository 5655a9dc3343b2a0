"""What a data set's masks and files mean: the content of `dataset.json`, and of the descriptions that are built in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from nasseg.data.dataset import DataError
from nasseg.data.formats.layout import Layout, within
from nasseg.errors import one_line, some_of
from nasseg.foreign import Line, read_json, read_yaml

Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Index = Annotated[int, Field(ge=0, le=65535)]
Value = Index | Colour
"""What a pixel of a mask holds: an index, or a colour."""
Name = Annotated[Line, Field(min_length=1)]
SOME = Field(min_length=1, max_length=255)
Reading = Literal["auto", "index", "colour"]

FILE = "dataset.json"
CONTENT = '{"classes": [...], "palette": [[r, g, b], ...], "ignore_index": 255}'


class Description(BaseModel):
    """The classes of a data set, what stands for them in its masks, and where its files are.

    `classes` are names, for the indices 0, 1, … in the masks, or names with what stands for each: an index, or a list
    of indices and colours: `{"road": 7, "vehicle": [26, 27], "sky": [[128, 128, 128]]}`. If no class lists a colour,
    colour masks have those of `palette`. What is in `ignore` is ignored: a list of indices and colours, or `"rest"` for
    all that stands for no class. `ignore_index` marks ignored pixels once masks are read; in masks of indices it is
    ignored, too, unless it stands for a class.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Line = ""
    about: Line = ""
    """What it is, and the source of its facts."""
    classes: Annotated[
        Annotated[tuple[Name, ...], SOME, Tag("names")]
        | Annotated[dict[Name, Index | tuple[Value, ...]], SOME, Tag("values")],
        Discriminator(lambda classes: "values" if isinstance(classes, dict) else "names"),
    ]
    palette: Annotated[tuple[Colour, ...], Field(max_length=255)] | None = None
    ignore_index: Level = 255
    ignore: Literal["rest"] | tuple[Value, ...] = ()
    masks: Reading = "auto"
    """How masks are read: by the kind of the file, or always as indices, or always as colours."""
    layout: tuple[Layout, ...] = ()
    """Where images and masks are; of several, the first that is there counts."""
    roots: tuple[str, ...] = ("",)
    """Folders, below the one that is named, in which the layout is looked for."""

    @field_validator("classes", mode="before")
    @classmethod
    def _distinct(cls, classes: Any) -> Any:
        names = list(classes) if isinstance(classes, (list, tuple, dict)) else []
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"the class {twice!r} is there twice, but each must have its own name")
        return classes

    @field_validator("layout", mode="before")
    @classmethod
    def _one_or_several(cls, layout: Any) -> Any:
        return [layout] if isinstance(layout, (dict, Layout)) else layout

    @field_validator("roots")
    @classmethod
    def _below(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        for root in roots:
            within(root)
        return roots

    @model_validator(mode="after")
    def _agree(self) -> Description:
        classes, ignored = len(self.names), self.ignore_index
        if self.palette is not None and len(self.palette) != classes:
            raise ValueError(
                f"palette has {len(self.palette)} colours, but must have one for each of the {classes} classes"
            )
        if ignored < classes:
            raise ValueError(f"ignore_index is {ignored}, but must not be a class index (0 to {classes - 1}): use 255")
        owner: dict[Value, str] = {}
        for name, value in self.meanings():
            if value in owner:
                both = f"{value} twice" if owner[value] == name else f"{value}, which stands for {owner[value]!r}, too"
                raise ValueError(f"classes.{name} holds {both}; a colour is a list in a list: [[128, 64, 128]]")
            owner[value] = name
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in the order of their indices."""
        return tuple(self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """A colour for each class to be shown in: the palette's, its first in the masks, or PASCAL VOC's."""
        if self.palette is not None:
            return self.palette
        own = {name: value for name, value in reversed(list(self.meanings())) if not isinstance(value, int)}
        return tuple(own.get(name, drawn) for name, drawn in zip(self.names, voc_colours(len(self.names)), strict=True))

    def meanings(self) -> Iterator[tuple[str, Value]]:
        """Each class with each index and colour that stands for it."""
        if isinstance(self.classes, tuple):
            yield from ((name, index) for index, name in enumerate(self.classes))
            return
        for name, given in self.classes.items():
            yield from ((name, value) for value in (given if isinstance(given, tuple) else (given,)))

    def values(self) -> Iterator[tuple[str, Value]]:
        """Each class with each index and colour that is read as it: `meanings` and, if no class lists any, the palette.

        A colour that several classes have in the palette is left out.
        """
        yield from self.meanings()
        if self.palette is not None and all(isinstance(value, int) for _, value in self.meanings()):
            for name, colour in zip(self.names, self.palette, strict=True):
                if self.palette.count(colour) == 1:
                    yield name, colour

    def merged(self, merge: Merge, where: str) -> Description:
        """The same data with other classes, each made of some of these; raises `DataError` if one is unknown."""
        by_name: dict[str, list[Value]] = {name: [] for name in self.names}
        for name, value in self.values():
            by_name[name].append(value)
        used = [part for parts in merge.classes.values() for part in parts]
        ignored = [name for name in self.names if name not in used] if merge.ignore == "rest" else list(merge.ignore)
        for part in used + ignored:
            if part not in by_name:
                raise DataError(f"{where}: {part!r} is no class of the data; its classes are {some_of(self.names)}")
            if (used + ignored).count(part) > 1:
                raise DataError(f"{where}: {part!r} is there twice, but must be merged into one class or ignored")
        if left := [name for name in self.names if name not in used + ignored]:
            raise DataError(f"{where} leaves out {some_of(left)}: merge them into a class, or write ignore: rest")
        shown = dict(zip(self.names, self.colours, strict=True))
        void = (value for name in ignored for value in by_name[name])
        fields = {
            "classes": {name: [v for part in parts for v in by_name[part]] for name, parts in merge.classes.items()},
            "palette": merge.palette or [shown[parts[0]] for parts in merge.classes.values()],
            "ignore": "rest" if self.ignore == "rest" else [*self.ignore, *void],
        }
        try:
            return Description.model_validate({**self.model_dump(), **fields})
        except ValidationError as error:
            raise DataError(one_line(error, where)) from error


class Merge(BaseModel):
    """The content of a file of classes: new classes by name, each with the classes of the data that it joins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1, max_length=255)
    ignore: Literal["rest"] | tuple[str, ...] = ()
    palette: tuple[Colour, ...] | None = None

    @field_validator("classes", mode="before")
    @classmethod
    def _lists(cls, classes: Any) -> Any:
        if not isinstance(classes, dict):
            return classes
        return {name: [parts] if isinstance(parts, str) else parts for name, parts in classes.items()}


def read_description(path: Path) -> Description:
    """Read a `dataset.json`; raises `DataError` if it is missing or invalid."""
    if not path.exists():
        raise DataError(f"{path} is missing: it must hold {CONTENT}")
    try:
        content = read_json(path, f"it must hold {CONTENT}")
    except ValueError as error:
        raise DataError(str(error)) from None
    return described(content, str(path))


def described(content: object, where: str) -> Description:
    """Make a description of its content in JSON; raises `DataError` if it is invalid."""
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        raise DataError(one_line(error, where)) from error


def read_merge(path: Path) -> Merge:
    """Read a YAML file of classes; raises `DataError` if it is missing or invalid."""
    try:
        return Merge.model_validate(read_yaml(path, "it must hold classes: {NAME: [CLASS, …], …}"))
    except ValidationError as error:
        raise DataError(one_line(error, str(path))) from error
    except ValueError as error:
        raise DataError(str(error)) from None


def voc_colours(count: int) -> tuple[Colour, ...]:
    """PASCAL VOC's colours: an index's bits, three at a time, fill the levels of red, green and blue from above."""
    return tuple(
        tuple(sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))  # type: ignore[misc]
        for index in range(count)
    )
