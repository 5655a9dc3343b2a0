"""What a survey of a training and a validation split gives reason to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nasseg.data.checking.duplicates import duplicates
from nasseg.data.checking.survey import Survey
from nasseg.data.dataset import Split
from nasseg.errors import some_of

MOSTLY_IGNORED = 0.9
MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One line on the data; `is_error` if a network trained on it would be worth nothing, or could not be trained."""

    text: str
    is_error: bool = False


def findings(splits: list[tuple[Split, Survey]]) -> list[Finding]:
    """What there is to say on splits, of which the first is trained on; the worst first."""
    found = [finding for split, survey in splits for finding in _of_one(split, survey)]
    surveys = [survey for _, survey in splits]
    found += [finding for other in surveys[1:] for finding in _of_two(surveys[0], other)]
    return sorted(found, key=lambda finding: not finding.is_error)


def _of_one(split: Split, survey: Survey) -> Iterator[Finding]:
    yield from (Finding(note) for note in split.notes)
    good = survey.images - len(survey.bad)
    if survey.bad:
        first = next(iter(survey.bad.values()))
        more = f" (and {len(survey.bad) - 1} more in {survey.name})" if len(survey.bad) > 1 else ""
        yield Finding(f"{first}{more}", is_error=True)
    if not good:
        return
    if not survey.used:
        yield Finding(f"all pixels of {survey.name} are ignored: there is nothing to learn or to score", is_error=True)
    elif len(survey.used) == 1:
        ignored = " beside ignored pixels" if survey.ignored_share else ""
        only = survey.classes[survey.used[0]]
        yield Finding(
            f"the masks of {survey.name} hold only the class {only!r}{ignored}: always saying so would score mIoU 1",
            True,
        )
    else:
        if survey.void:
            masks = "1 mask" if len(survey.void) == 1 else f"{len(survey.void)} masks"
            are = "is" if len(survey.void) == 1 else "are"
            yield Finding(f"{masks} of {survey.name} {are} ignored throughout: {some_of(survey.void, MOST_NAMED)}")
        if survey.ignored_share > MOSTLY_IGNORED:
            yield Finding(f"{survey.ignored_share:.1%} of the pixels of {survey.name} are ignored")


def _of_two(train: Survey, val: Survey) -> Iterator[Finding]:
    if min(len(train.used), len(val.used)) > 1:
        yield from _of_classes(train, val)
    equal, nearly = duplicates(train, val)
    for pairs, how in ((equal, "are copies of images"), (nearly, "look almost like images")):
        if pairs:
            name, other = next(iter(pairs.items()))
            yield Finding(
                f"{len(pairs)} of {val.images} images of {val.name} {how} of {train.name}, so their scores "
                f"reward memory: {name}, {other}"
            )


def _of_classes(train: Survey, val: Survey) -> Iterator[Finding]:
    missing = [train.classes[index] for index in val.used if index not in train.used]
    if missing:
        yield Finding(f"{val.name} holds classes that {train.name} never does: {some_of(missing, MOST_NAMED)}")
    never = [name for index, name in enumerate(train.classes) if index not in {*train.used, *val.used}]
    if never:
        yield Finding(f"no mask of {train.name} or {val.name} holds {some_of(never, MOST_NAMED)}")
