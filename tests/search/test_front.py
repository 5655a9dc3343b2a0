from hypothesis import given
from hypothesis import strategies as st

from nasseg.search.front import non_dominated

few = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(few, few), max_size=12))
def test_the_front_is_what_no_point_beats(points: list[tuple[float, float]]) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    front = non_dominated(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_equal_points_stay_in_their_order() -> None:
    assert non_dominated([(2, 0.5), (1, 0.4), (2, 0.5), (3, 0.5)]) == [1, 0, 2]
