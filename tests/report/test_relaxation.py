from pathlib import Path

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasseg.report.figures.weighted_graph import CHOSEN, OTHER, draw_weights
from nasseg.report.relaxation import RelaxationReporter, snapshots
from nasseg.space.weighted_graph import WeightedEdge, WeightedGraph, WeightedNode
from nasseg.train.relaxation.trainer import RelaxationSnapshot
from tests.report.made_up import cell_graph, snapshot, trellis


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts) if text.get_text().strip()]


def lines(figure: Figure, colour: str) -> dict[tuple[tuple[float, float], tuple[float, float]], float]:
    """Widths by both ends."""
    found = {}
    for lines in figure.axes[0].collections:
        assert isinstance(lines, LineCollection)
        if to_hex(lines.get_color()[0]) == colour:
            for (start, stop), width in zip(lines.get_segments(), lines.get_linewidths(), strict=True):
                found[(start[0], start[1]), (stop[0], stop[1])] = width
    return found


def bars(figure: Figure, colour: str) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if to_hex(patch.get_facecolor()) == colour]


def test_a_trellis_has_a_line_for_each_move_at_its_place() -> None:
    graph = trellis()
    places = {node.name: (node.column, node.row) for node in graph.nodes}
    figure = draw_weights(graph, "seed 3, step 1,200 of 4,000")
    path = lines(figure, CHOSEN)
    assert set(path) == {(places[e.source], places[e.target]) for e in graph.edges if e.chosen}
    assert len(path) == 12
    others = lines(figure, OTHER)
    assert len(path) + len(others) == len(graph.edges) == 2 + 5 + 8 + 9 * 10
    by_weight = sorted((e.weight, others[places[e.source], places[e.target]]) for e in graph.edges if not e.chosen)
    widths = [width for _, width in by_weight]
    assert widths == sorted(widths)
    assert widths[0] < 0.25 * widths[-1]


def test_a_trellis_says_layers_strides_and_the_weights_of_the_path() -> None:
    graph = trellis(layers=4)
    figure = draw_weights(graph, "seed 3")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3", "4"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "8", "16", "32"]
    path = [f"{edge.weight:.2f}" for edge in graph.edges if edge.chosen]
    assert sorted(texts(figure)) == sorted([graph.title, "seed 3", "stem", *path])


def test_a_cell_has_a_bar_for_each_operator_and_none_on_another() -> None:
    graph = cell_graph()
    figure = draw_weights(graph)
    chosen, others = bars(figure, CHOSEN), bars(figure, OTHER)
    assert (len(chosen), len(others)) == (10, 20 * 8 - 10)
    assert len({(bar.get_x(), bar.get_y()) for bar in (*chosen, *others)}) == 160
    scale = {round(bar.get_width() / edge.weight, 6) for bar, edge in zip(chosen, _kept(graph), strict=True)}
    assert len(scale) == 1


def test_a_cell_names_states_blocks_and_operators() -> None:
    found = texts(draw_weights(cell_graph(blocks=2)))
    assert [found.count(name) for name in ("H l-1", "H l-2", "block 1", "block 2")] == [1, 1, 2, 1]
    assert [found.count(name) for name in ("sep3", "average pool", "zero")] == [2, 2, 2]
    assert [f"{edge.weight:.2f}" in found for edge in _kept(cell_graph(blocks=2))] == [True] * 4


def test_bars_stand_in_the_row_of_the_target_and_the_column_of_the_source() -> None:
    nodes = tuple(WeightedNode(name=name, column=index, row=0, label=name) for index, name in enumerate("abc"))
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    edges = tuple(
        WeightedEdge(source=s, target=t, weight=0.5, label=op, chosen=op == "y") for s, t in pairs for op in "xy"
    )
    figure = draw_weights(WeightedGraph(name="g", title="g", nodes=nodes, edges=edges))
    ab, ac, bc = bars(figure, CHOSEN)
    assert ab.get_x() == ac.get_x() < bc.get_x()
    assert ab.get_y() < ac.get_y() == bc.get_y()
    over_ab = bars(figure, OTHER)[0]
    assert (over_ab.get_x(), over_ab.get_width()) == (ab.get_x(), ab.get_width())
    assert over_ab.get_y() < ab.get_y()


@pytest.mark.parametrize("graph", [trellis(layers=1), cell_graph(blocks=1)], ids=["trellis", "cell"])
def test_the_smallest_graphs_can_be_drawn(graph: WeightedGraph) -> None:
    assert graph.title in texts(draw_weights(graph, "note"))


def write(folder: Path, shown: RelaxationSnapshot) -> None:
    (folder / "relaxation").mkdir(exist_ok=True)
    (folder / "relaxation" / f"seed{shown.seed}.json").write_text(shown.model_dump_json())


def steps(folder: Path, seed: int) -> tuple[list[int], list[int]]:
    """The steps of the numbers and of the pictures on the board."""
    events = EventAccumulator(str(folder / "tensorboard" / "relaxation" / f"seed{seed}")).Reload()
    pictures = events.Images("relaxation/cell") if events.Tags()["images"] else ()
    return [e.step for e in events.Scalars("relaxation/expected cost")], [e.step for e in pictures]


def test_snapshots_are_shown_once_and_drawn_into_the_folder(tmp_path: Path) -> None:
    reporter = RelaxationReporter(tmp_path)
    for seed in (10, 9):
        write(tmp_path, snapshot(seed=seed))
        reporter.update()
        reporter.update()
    assert [shown.seed for shown in snapshots(tmp_path)] == [9, 10]
    first = {f"{name}-seed10{suffix}" for name in ("network", "cell") for suffix in (".png", ".svg")}
    written = {path.name for path in (tmp_path / "relaxation").iterdir()}
    assert written == first | {"seed9.json", "seed10.json"}  # it is not time to draw again
    write(tmp_path, snapshot(seed=10, step=300))
    reporter.close()
    assert ">seed 10, step 300 of 400<" in (tmp_path / "relaxation" / "cell-seed10.svg").read_text()
    assert ">seed 9, step 100 of 400<" in (tmp_path / "relaxation" / "network-seed9.svg").read_text()
    assert steps(tmp_path, 10) == ([100, 300], [100, 300])
    assert steps(tmp_path, 9) == ([100], [100])


def test_pictures_are_drawn_again_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = RelaxationReporter(tmp_path)
    for step in (100, 200, 300):
        if step == 300:
            monkeypatch.setattr("nasseg.report.relaxation.DRAW_EVERY_SECONDS", 0)
        write(tmp_path, snapshot(step=step))
        reporter.update()
    reporter.close()
    assert steps(tmp_path, 0) == ([100, 200, 300], [100, 300])


def test_a_relaxation_that_went_back_is_shown_as_it_went_on(tmp_path: Path) -> None:
    reporter = RelaxationReporter(tmp_path)
    for step in (100, 300, 200, 250):
        write(tmp_path, snapshot(step=step))
        reporter.update()
    reporter.close()
    assert steps(tmp_path, 0) == ([100, 200, 250], [100, 250])


def test_a_search_without_relaxations_writes_nothing(tmp_path: Path) -> None:
    reporter = RelaxationReporter(tmp_path)
    reporter.update()
    reporter.close()
    assert list(tmp_path.iterdir()) == []


def _kept(graph: WeightedGraph) -> list[WeightedEdge]:
    return [edge for edge in graph.edges if edge.chosen]
