"""The budget of a search: `200gpu-h`, `8cpu-h`, `30min`, `40trials`."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Unit = Literal["gpu-h", "cpu-h", "h", "min", "s", "trials"]

_EXAMPLES = "200gpu-h, 8cpu-h, 2h, 30min, 90s or 40trials"
_SECONDS: dict[str, float] = {"gpu-h": 3600, "cpu-h": 3600, "h": 3600, "min": 60, "s": 1}


class Budget(BaseModel):
    """An amount and its unit.

    `gpu-h` is GPUs in use times hours, `cpu-h` is cores in use times hours, `h`, `min` and `s` are wall clock, `trials`
    is the number of distinct candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: float = Field(gt=0)
    unit: Unit

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """Parse `text`, unless it is a budget already; raises `ValueError` if it is malformed."""
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(r"([+-]?\d+(?:\.\d+)?)\s*(gpu-h|cpu-h|h|min|s|trials?)", text.strip())
        if match is None:
            raise ValueError(f"budget {text!r} must be a number and a unit; write it like {_EXAMPLES}")
        amount, unit = float(match[1]), "trials" if match[2] == "trial" else match[2]
        if amount <= 0:
            raise ValueError(f"budget {text!r} must be more than 0; write it like {_EXAMPLES}")
        if unit == "trials" and not amount.is_integer():
            raise ValueError(f"budget {text!r} must be a whole number of trials; write it like 40trials")
        return cls.model_validate({"amount": amount, "unit": unit})

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}"

    def times(self, factor: int) -> Budget:
        """Return so many times this budget."""
        return self.model_copy(update={"amount": factor * self.amount})

    @property
    def trials(self) -> int | None:
        """The number of distinct candidates, or `None` for a budget of time."""
        return int(self.amount) if self.unit == "trials" else None

    def wall_seconds(self, cores: int, gpus: int) -> float:
        """Convert to seconds of wall clock with `cores` cores and `gpus` GPUs in use; infinite for a budget of trials.

        Raises `ValueError` for a budget of GPU-hours without a GPU.
        """
        if self.unit == "trials":
            return math.inf
        if self.unit == "gpu-h" and gpus == 0:
            raise ValueError(f"budget {self} needs a GPU, and there is none; give cpu-h, min or trials instead")
        devices = {"gpu-h": gpus, "cpu-h": cores}.get(self.unit, 1)
        return self.amount * _SECONDS[self.unit] / devices
