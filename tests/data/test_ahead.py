import threading
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.data.ahead import WAITING, in_order


@given(st.lists(st.integers()), st.integers(0, 4))
def test_items_come_in_order(items: list[int], readers: int) -> None:
    assert list(in_order(lambda item: item + 1, items, readers)) == [item + 1 for item in items]


def test_readers_work_at_once_and_only_few_items_ahead() -> None:
    begun, both = [], threading.Barrier(2, timeout=30)

    def prepare(item: int) -> int:
        begun.append(item)
        if item < 2:
            both.wait()  # passes only if two readers are in here
        return item

    prepared = in_order(prepare, count(), readers=2)
    assert [next(prepared) for _ in range(3)] == [0, 1, 2]
    prepared.close()  # type: ignore[attr-defined]
    assert max(begun) <= 3 + 2 + WAITING


@pytest.mark.parametrize("readers", [0, 2])
def test_an_error_is_raised_in_its_turn(readers: int) -> None:
    prepared = in_order(lambda item: 6 // item, (3, 2, 0, 1), readers)
    assert (next(prepared), next(prepared)) == (2, 3)
    with pytest.raises(ZeroDivisionError):
        next(prepared)
