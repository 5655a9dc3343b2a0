from dataclasses import replace

from nasseg.report.figures.front import cost_axis, front_figure
from tests.report.made_up import rows


def test_the_cost_is_what_the_search_went_by() -> None:
    all_rows = rows()
    assert cost_axis(all_rows) == ("MAdds (G)", [2.0, 1.0, 2.0, None, None])
    assert cost_axis(all_rows[:2]) == ("MAdds (G)", [2.0, 1.0])
    predicted = [replace(row, predicted_latency_ms=12.5) for row in all_rows[:2]]
    assert cost_axis(predicted) == ("latency (ms)", [30.0, 20.0])
    elsewhere = [replace(row, by_measurement=False) for row in predicted]
    assert cost_axis(elsewhere) == ("predicted latency (ms)", [12.5, 12.5])
    predicted[0] = replace(predicted[0], latency=None)
    assert cost_axis(predicted) == ("predicted latency (ms)", [12.5, 12.5])


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
