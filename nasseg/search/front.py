"""The trade-off between cost and accuracy: which networks no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, mIoU) that no other beats, by rising cost and, where equal, by index.

    A point is beaten by one that costs no more, scores no less, and is better in one of the two; equal points stay.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front
