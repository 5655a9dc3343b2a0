from hypothesis import given
from hypothesis import strategies as st

from nasseg.report.front import cost_axis, front_figure, non_dominated
from tests.report.made_up import rows

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


def test_the_cost_is_latency_only_where_all_scored_rows_have_one() -> None:
    all_rows = rows()
    assert cost_axis(all_rows) == ("MAdds (G)", [2.0, 1.0, 2.0, None, None])
    assert cost_axis(all_rows[:2]) == ("latency (ms)", [30.0, 20.0])


def test_the_figure_marks_the_references_and_the_fronts() -> None:
    figure = front_figure(rows())
    (axes,) = figure.axes
    assert axes.get_xlabel() == "MAdds (G)"
    assert {text.get_text() for text in axes.texts} == {"aspp"}
    proxy, end_to_end = (line.get_xydata() for line in axes.lines)
    assert proxy.tolist() == [[1.0, 0.65]]
    assert end_to_end.tolist() == [[1.0, 0.76]]


def test_a_search_without_any_result_has_an_empty_figure() -> None:
    assert front_figure(rows()[3:]).axes[0].has_data() is False
