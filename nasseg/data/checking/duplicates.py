"""Images of one split that another one holds, too, as they are or nearly so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nasseg.data.checking.survey import Survey

NEARLY_EQUAL = 0.995
"""Correlation of two thumbnails from which their images count as nearly equal.

Frames of CamVid 1/15 s apart have 0.997 in the median, those of one drive 1 s apart 0.88 to 0.93, the nearest of two
drives 0.89.
"""
PAIRS_AT_ONCE = 1 << 24


class Duplicates(NamedTuple):
    """Images of the second split, each with one of the first that is equal, or nearly so."""

    equal: dict[str, str]
    nearly: dict[str, str]


def duplicates(first: Survey, second: Survey) -> Duplicates:
    """Compare every image of two splits; images that are one sample of both count as equal."""
    by_digest = {digest: name for name, digest in first.digests.items()}
    equal = {name: by_digest[digest] for name, digest in second.digests.items() if digest in by_digest}
    names, others = list(first.thumbnails), [name for name in second.thumbnails if name not in equal]
    nearly: dict[str, str] = {}
    if names and others:
        known = np.stack([first.thumbnails[name] for name in names])
        at_once = max(1, PAIRS_AT_ONCE // len(names))
        for start in range(0, len(others), at_once):
            rows = others[start : start + at_once]
            alike = np.stack([second.thumbnails[name] for name in rows]) @ known.T
            best = alike.argmax(1)
            nearly |= {
                name: names[place]
                for row, (name, place) in enumerate(zip(rows, best.tolist(), strict=True))
                if alike[row, place] >= NEARLY_EQUAL
            }
    return Duplicates(equal, nearly)
