"""The scores of a retraining along the way: which state is the best, and when to stop early."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from nasseg.errors import one_line
from nasseg.graph import write_atomically
from nasseg.run_folder import HISTORY_FILE


class Validation(BaseModel):
    """The mIoU on the validation split after so many steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    miou: float


class History(BaseModel):
    """The validations of a run in order of steps; a run that repeats steps after a kill repeats their validations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validations: tuple[Validation, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> History:
        """Read the history in a run folder, empty if there is none; raises `ValueError` for a damaged one."""
        path = folder / HISTORY_FILE
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(one_line(error, str(path))) from None

    def save(self, folder: Path) -> None:
        """Write the history into a run folder."""
        write_atomically(folder / HISTORY_FILE, self.model_dump_json(indent=1) + "\n")

    def until(self, step: int) -> History:
        """Return the part up to `step`, inclusive."""
        return History(validations=tuple(known for known in self.validations if known.step <= step))

    def adding(self, step: int, miou: float) -> History:
        """Return the history with the score after `step`, which later validations follow."""
        return History(validations=(*self.until(step - 1).validations, Validation(step=step, miou=miou)))

    def has(self, step: int) -> bool:
        """Tell whether the state after `step` was scored."""
        return any(known.step == step for known in self.validations)

    @property
    def best(self) -> Validation | None:
        """The highest score, the first of equal ones."""
        return max(self.validations, key=lambda known: known.miou, default=None)

    def stalled(self, patience: int | None) -> bool:
        """Tell whether none of the last `patience` validations exceeded all those before; never, if it is `None`."""
        best = self.best
        return (
            patience is not None
            and best is not None
            and len(self.validations) - 1 - self.validations.index(best) >= patience
        )
