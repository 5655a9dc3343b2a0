from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from nasseg.errors import one_line, some_of
from nasseg.ops import OPS, AnyOp


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1)] = 1
    norm: Literal["batch", "none"] = "none"
    names: tuple[str, ...] = ()

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2 and size > 1:
            raise ValueError(f"size is {size}, but must be even")
        return size


class Whole(BaseModel):
    title: str
    parts: list[Part] = []
    op: AnyOp | None = None


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({}, "title is missing"),
        ({"title": "a", "parts": {}}, "parts is {}, but must be a valid list"),
        ({"title": "a", "parts": [{}, {"size": 0}]}, "parts[1].size is 0, but must be greater than or equal to 1"),
        ({"title": "a", "parts": [{"size": 3}]}, "parts[0].size: size is 3, but must be even"),
        ({"title": "a", "parts": [{"norm": "group"}]}, "parts[0].norm is 'group', but must be 'batch' or 'none'"),
        ({"title": "a", "parts": [{"colour": 1}]}, "parts[0].colour is not a known field"),
        ({"title": "a", "parts": [{"names": [None]}]}, "parts[0].names[0] is None, but must be a valid string"),
        ({"title": 5, "parts": 5}, "title is 5, but must be a valid string (and 1 more)"),
        ({"title": "a", "op": {"kernel": 3}}, "op.op is missing"),
        ({"title": "a", "op": {"op": "konv"}}, f"op.op is 'konv', but must be one of {', '.join(OPS)}"),
        ({"title": "a", "op": {"op": "conv"}}, "op.out_channels is missing"),
        (
            {"title": "a", "op": {"op": "transposed_conv", "out_channels": 1, "kernel": 1}},
            "op: kernel is 1, but must be stride 2 plus an even number, so that the output is stride times the input",
        ),
    ],
)
def test_the_field_the_value_and_the_rule_are_on_one_line(data: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(data)
    assert one_line(caught.value) == line
    assert one_line(caught.value, "best.json") == f"best.json: {line}"


def test_a_problem_of_the_whole_has_no_path() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("many")
    assert one_line(caught.value) == "is 'many', but must be a valid integer, unable to parse string as an integer"
    assert one_line(caught.value, "workers").startswith("workers: is 'many'")


def test_long_values_are_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(list(range(10_000)))
    assert one_line(caught.value) == "is [0, 1, 2, 3, 4, 5, ...], but must be a valid integer"


def test_the_first_of_many_are_named() -> None:
    assert some_of(["a", "b"], 2) == "a, b"
    assert some_of(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"
    assert some_of({"a, b": 1, "c": 2, "d": 3}, 1, "; ") == "a, b and 2 more"
    assert some_of(()) == ""
