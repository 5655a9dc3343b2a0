"""The look at the data that precedes every search and every training."""

from __future__ import annotations

from nasseg.data.checking.findings import findings
from nasseg.data.checking.mistakes import mistakes
from nasseg.data.checking.survey import Show, silent, survey
from nasseg.data.dataset import DataError, Dataset


def review(dataset: Dataset, train: str, val: str, show: Show = silent) -> list[str]:
    """Read all images of two splits, and return warnings about them, a line each.

    Raises `DataError` if samples cannot be used, or if there is nothing to learn from them. Splits that are computed
    are not looked at.
    """
    splits = [dataset.split(name) for name in dict.fromkeys((train, val))]
    if any(split.is_computed for split in splits):
        return []
    surveyed = [(split, survey(split, show)) for split in splits]
    found, wrong = findings(surveyed), mistakes(dataset, surveyed)
    errors = [finding.text for finding in found if finding.is_error]
    errors += [finding.text for finding in wrong if finding.is_error]
    if errors:
        hints = [finding.text for finding in wrong if finding.is_error]
        raise DataError("; ".join(dict.fromkeys([errors[0], *hints[:1]])))
    same = [f"{train} is trained on and scored on, so scores reward memory"] if train == val else []
    return same + [finding.text for finding in found + wrong]
