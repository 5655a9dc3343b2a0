from hypothesis import given
from hypothesis import strategies as st

from nasseg.search.halving import Rung

scores = st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), max_size=30)


@given(scores, st.integers(2, 4))
def test_promotable_are_the_best_share_that_was_not_promoted(finished: list[float | None], reduction: int) -> None:
    rung, promoted = Rung(reduction), set[int]()
    for number, score in enumerate(finished):
        rung.finish(number, score)
        done = finished[: number + 1]
        order = sorted(range(len(done)), key=lambda i: (done[i] is None, -(done[i] or 0), i))
        best = [i for i in order[: len(done) // reduction] if done[i] is not None and i not in promoted]
        assert rung.promotable(limit=100) == best
        if best:
            rung.promote(best[0], done[best[0]])
            promoted.add(best[0])
    assert set(rung.waiting()) == {i for i, score in enumerate(finished) if score is not None} - promoted
    assert len(rung) == len(finished)
