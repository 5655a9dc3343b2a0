"""Latency tables: the time of each operator on a device, and from it the latency of networks never built there."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator
from typing_extensions import Self

from nasseg.cost.calibration import Calibration, PredictionError
from nasseg.cost.describe import Shape, walk
from nasseg.cost.interpolation import Interpolation
from nasseg.errors import some_of
from nasseg.foreign import MAX_CHANNELS, MAX_SIDE, damaged
from nasseg.graph import Architecture, read_model, write_atomically
from nasseg.ops import AnyOp, Input, Op

FORMAT: Final = "nasseg.latency/1"
RARE_SHARE = 0.02
"""The share of a space's operators that may lack a measurement because they are too rare for a profile to find."""
LISTED = 3
"""Operators that a message lists by name."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _checked(shape: Shape) -> Shape:
    channels, height, width = shape
    if not (1 <= channels <= MAX_CHANNELS and 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        limits = f"from 1×1×1 to {MAX_CHANNELS}×{MAX_SIDE}×{MAX_SIDE}"
        raise ValueError(f"shape is {'×'.join(map(str, shape))}, but must be {limits}")
    return shape


class Operator(_Data):
    """An operator on inputs of given shapes (C, H, W); a table has one entry for each."""

    op: AnyOp
    inputs: tuple[Annotated[Shape, AfterValidator(_checked)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.op.check([channels for channels, _, _ in self.inputs])
        return self

    def __str__(self) -> str:
        return f"{self.op} on {', '.join('×'.join(map(str, shape)) for shape in self.inputs)}"


class Entry(_Data):
    """The time of an operator: the median and its confidence interval, in milliseconds."""

    operator: Operator
    median_ms: NonNegativeFloat
    low_ms: NonNegativeFloat
    high_ms: NonNegativeFloat


class Conditions(_Data):
    """The conditions of a measurement; `size` is the images' (height, width)."""

    device: str
    dtype: Literal["float32", "float16", "bfloat16"]
    backend: str
    batch: PositiveInt
    size: tuple[PositiveInt, PositiveInt]
    threads: PositiveInt
    torch: str = Field(default_factory=lambda: torch.__version__)
    platform: str = Field(default_factory=platform.platform)


class LatencyTable(_Data):
    """The times of operators on one device, and the calibration that adds them up.

    The latency of a network is the calibrated sum over the nodes of its inference graph. An operator that was not
    measured is interpolated from measured ones of the same kind. `operators_found` counts the distinct operators found
    in `space`; in a large space only some are measured. `error` is that of predictions for networks that
    the calibration had not seen.
    """

    format: Literal["nasseg.latency/1"] = FORMAT
    space: str
    conditions: Conditions
    measured_at: str = Field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    operators_found: PositiveInt
    calibration: Calibration
    error: PredictionError
    entries: tuple[Entry, ...] = Field(min_length=1)

    @property
    def fingerprint(self) -> str:
        """A hash of all that the table says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def interpolates(self) -> bool:
        """Whether some operators found in the space were not measured."""
        return len(self.entries) < self.operators_found

    def latency_ms(self, architecture: Architecture) -> float:
        """Predict the latency of a network for images of the table's size.

        Raises `ValueError` if the table lacks the kind of one of the network's operators.
        """
        operators = operators_of(architecture, self.conditions.size)
        self._check_known(operators)
        return self._sum_ms(operators)

    def latency_ms_if_known(self, architecture: Architecture) -> float | None:
        """Predict as `latency_ms` does; `None` if the table lacks the kind of one of the network's operators."""
        operators = operators_of(architecture, self.conditions.size)
        return None if self._without_a_kind(operators) else self._sum_ms(operators)

    def op_ms(self, op: Op, inputs: Sequence[Shape]) -> float:
        """Predict what one operator adds to a network's latency, which is the sum of these plus `fixed_ms`.

        `inputs` are shapes (C, H, W). Raises `ValueError` if the table has no operator of this kind.
        """
        operator = Operator(op=op, inputs=tuple(inputs))
        self._check_known([operator])
        with damaged(f"the latency table of {self.space}", "profile it again"):
            return self.calibration.scale * self._measured_ms(operator) + self.calibration.per_node_ms

    def missing(self, architecture: Architecture) -> tuple[Operator, ...]:
        """List the distinct operators of a network that were not measured and cannot be interpolated."""
        return self._without_a_kind(operators_of(architecture, self.conditions.size))

    def check(self, size: tuple[int, int], dtype: str, architectures: Iterable[Architecture] = ()) -> None:
        """Raise `ValueError`, with the reason, unless the table fits images of `size`, `dtype` and these networks.

        A few of the networks' operators may lack a measurement; many only if the table interpolates anyway.
        """
        (height, width), (wanted_height, wanted_width) = self.conditions.size, size
        if self.conditions.size != size:
            raise ValueError(
                f"the latency table is for images of {height}x{width}, but {wanted_height}x{wanted_width} is needed; "
                f"profile with --size {wanted_height}x{wanted_width}"
            )
        if self.conditions.dtype != dtype:
            raise ValueError(
                f"the latency table is for {self.conditions.dtype}, but {dtype} is needed; profile with --dtype {dtype}"
            )
        operators = [operator for network in architectures for operator in operators_of(network, size)]
        unmeasured = [operator for operator in operators if operator not in self._ms]
        if len(unmeasured) > RARE_SHARE * len(operators) and not self.interpolates:
            raise self._lacks(tuple(dict.fromkeys(unmeasured)))
        self._check_known(operators)

    def save(self, path: str | Path) -> None:
        """Write the table; a reader sees the old content or the new, never a part."""
        write_atomically(path, dump(self))

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table; raises `ValueError` with the path of the offending field."""
        return read_model(cls, path, "a table of nasseg profile")

    @cached_property
    def _ms(self) -> dict[Operator, float]:
        return {entry.operator: entry.median_ms for entry in self.entries}

    @cached_property
    def _interpolation(self) -> Interpolation:
        return Interpolation(((e.operator.op, e.operator.inputs), e.median_ms) for e in self.entries)

    def _sum_ms(self, operators: Sequence[Operator]) -> float:
        with damaged(f"the latency table of {self.space}", "profile it again"):
            return self.calibration.latency_ms(sum(map(self._measured_ms, operators)), len(operators))

    def _measured_ms(self, operator: Operator) -> float:
        known = self._ms.get(operator)
        return self._interpolation.ms(operator.op, operator.inputs) if known is None else known

    def _without_a_kind(self, operators: Iterable[Operator]) -> tuple[Operator, ...]:
        kinds = self._interpolation.kinds
        return tuple(dict.fromkeys(o for o in operators if o.op.op not in kinds))

    def _check_known(self, operators: Iterable[Operator]) -> None:
        if unknown := self._without_a_kind(operators):
            raise self._lacks(unknown)

    def _lacks(self, operators: Sequence[Operator]) -> ValueError:
        return ValueError(
            f"the latency table of {self.space} lacks {len(operators)} operators: "
            f"{some_of(operators, LISTED, '; ')}; profile the space being searched"
        )


def operators_of(architecture: Architecture, size: tuple[int, int]) -> list[Operator]:
    """List the operators of a network's inference graph, one per node, for images of `size` (height, width)."""
    needed = architecture.ancestors(architecture.outputs)
    return [
        Operator.model_construct(op=node.op, inputs=inputs)
        for node, inputs, _ in walk(architecture, size)
        if node.name in needed and not isinstance(node.op, Input)
    ]


def dump(data: BaseModel) -> str:
    """Write `data` as JSON, one line per item of a top-level list: small, and readable in a diff."""
    fields = data.model_dump(mode="json")
    parts = []
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
