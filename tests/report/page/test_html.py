import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nasseg.experiment.trust import Gain, measure_trust
from nasseg.report.page.html import Report, page, write_report
from nasseg.report.page.plots import budget_plot, choice_lines, front_plot
from search_spaces.dpc import DPC
from tests.report.made_up import RUNGS, make_trials, rows, snapshot

ALL = rows()
REPORT = Report(
    title="search <dpc>",
    rows=ALL,
    rungs=RUNGS,
    best=ALL[1].key,
    classes=("road", "sky", "car"),
    history=((1.0, 0.5), (2.0, 0.76)),
    config="seed: 0\nweights: <none>\n",
    architecture=DPC().architecture(DPC().parse(ALL[1].choice), classes=3),
    place="cell",
    trust=measure_trust(make_trials(), RUNGS),
)


@pytest.fixture(scope="module")
def html() -> str:
    return page(REPORT)


class Tables(HTMLParser):
    """The cells of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def tables(html: str) -> list[list[list[str]]]:
    parser = Tables()
    # The parser need not read plotly's megabytes.
    parser.feed(re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    return parser.tables


def test_the_best_stands_beside_the_references(html: str) -> None:
    comparison = tables(html)[0]
    assert comparison[1:] == [
        ["b" * 10, "0.7600 ± 0.0141", "2", "0.6500", "0.7600", "3.50 M", "1.00 G", "20.0 ms", "21.0 ms"],
        ["aspp", "0.7100 ± 0.0141", "2", "0.6000", "0.7100", "3.50 M", "2.00 G", "30.0 ms", "31.0 ms"],
    ]
    assert "median of 20 runs on TestChip 9, float32, batch 1, 160×320, 2 threads, torch 2.13" in html
    notes = re.findall(r'class="note (good|bad)">([^<]*)<', html)
    assert notes == [("good", "+0.0500"), ("good", "+0 %"), ("good", "-50 %"), ("good", "-33 %")]


def test_the_tables_hold_trust_classes_and_all_candidates(html: str) -> None:
    _, trust, classes, candidates = tables(html)
    assert trust[1] == ["step 100", "step 300", "2", "–", "–"]
    assert "± 0.0141 mIoU between seeds" in html
    assert classes[0] == ["class", "b" * 10, "aspp"]
    assert classes[1:] == [["road", "0.760", "0.710"], ["sky", "–", "–"], ["car", "0.380", "0.355"]]
    assert [row[0] for row in candidates] == ["candidate", "b" * 10, "aspp", "c" * 10, "d" * 10, "e" * 10]
    assert candidates[3][1:5] == ["stopped early", "0.4000", "–", "–"]
    assert candidates[4][1] == "diverged"
    assert "the loss is nan at step 37" in html


def test_a_search_by_trials_has_no_relaxations(html: str) -> None:
    assert "by gradient" not in html


def test_the_page_is_whole_without_a_network(html: str) -> None:
    assert html.count("plotly.js v") == 1
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(https?:)?//", outside)
    assert re.search(r">3×3 atrous 1×6<", outside)
    assert "search &lt;dpc&gt;" in outside
    assert "weights: &lt;none&gt;" in outside


def test_the_front_tells_each_cell_on_hover() -> None:
    figure = front_plot(ALL, ALL[1].key)
    by_name = {trace.name: trace for trace in figure.data}
    fronts = {"front, proxy, top rung", "front, end to end"}
    assert set(by_name) == {"proxy, lower rungs", "proxy, top rung", "end to end"} | fronts
    assert (by_name["proxy, lower rungs"].x, by_name["proxy, lower rungs"].y) == ((2.0,), (0.4,))
    assert by_name["front, end to end"].x == (1.0,)
    assert sorted(by_name["end to end"].text) == ["aspp", "best"]
    hover = by_name["end to end"].customdata[list(by_name["end to end"].text).index("best")]
    assert "branches[0]: input -1, op atrous, rate 1×6" in hover
    assert "mIoU end to end 0.7600 ± 0.0141" in hover


def test_the_budget_plot_has_the_history_and_the_baseline() -> None:
    figure = budget_plot(REPORT.history, 0.71)
    assert (figure.data[0].x, figure.data[0].y) == ((1.0, 2.0), (0.5, 0.76))
    assert figure.layout.shapes[0].y0 == 0.71
    assert figure.layout.xaxis.title.text == "budget spent (min)"


def test_fresh_seeds_are_what_the_headline_is_of() -> None:
    aspp, best, *others = ALL
    compared = [replace(aspp, fresh={1000: 0.7}), replace(best, fresh={1000: 0.74})]
    gain = Gain(found=best.key, baseline="aspp", miou=0.04, seeds=(1, 1), interval=(-0.01, 0.09))
    html = page(replace(REPORT, rows=[*compared, *others], gain=gain))
    assert [row[:4] for row in tables(html)[0]] == [
        ["network", "mIoU end to end", "seeds", "fresh seeds"],
        ["b" * 10, "0.7600 ± 0.0141", "2", "0.7400"],
        ["aspp", "0.7100 ± 0.0141", "2", "0.7000"],
    ]
    assert re.search(
        r'mIoU on fresh seeds</div><div class="value">0.7400</div><div class="note faint">\+0.0400, a t', html
    )
    assert "+0.0400 mIoU, 95 % interval -0.0100 to +0.0900: a tie" in html
    surely = page(replace(REPORT, rows=[*compared, *others], gain=gain.model_copy(update={"interval": (0.01, 0.07)})))
    assert '<div class="note good">+0.0400<' in surely


def test_a_search_that_found_nothing_better_says_so() -> None:
    html = page(replace(REPORT, best=ALL[0].key, architecture=None, trust=None))
    assert "Best: <b>aspp</b>: no candidate beat the baseline." in html
    assert "The best network" not in html
    assert tables(html)[0][1][0] == "aspp"


def test_a_search_by_gradient_shows_each_relaxation() -> None:
    html = page(replace(REPORT, relaxations=(snapshot(seed=0, step=100), snapshot(seed=3, step=400))))
    _, first, second = tables(html)[1]
    assert first == ["seed 0", "100", "400", "2.25", "–", "4e+09"]
    assert second == ["seed 3", "400", "400", "1.5", "2", "4e+09"]
    for text in (">seed 0, step 100 of 400<", ">seed 3, step 400 of 400<"):
        assert html.count(text) == 2


def test_limits_are_told() -> None:
    assert "candidates (at most 17.00 ms, references excepted): " in page(replace(REPORT, limits="at most 17.00 ms"))
    assert "excepted" not in page(REPORT)


def test_a_search_cut_off_early_has_a_page() -> None:
    html = page(replace(REPORT, rows=ALL[3:], best=ALL[3].key, history=(), architecture=None, trust=None))
    assert "mIoU proxy" in html
    assert 'class="value">–<' in html


def test_the_file_is_written(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", replace(REPORT, architecture=None))
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_of_many_candidates_the_references_and_the_best_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.report.page.html.MOST_LISTED", 2)
    assert [row.name for row in REPORT.listed] == ["aspp", "b" * 10]
    shown = page(REPORT)
    assert f"The best 2 of {len(ALL)} candidates" in shown
    assert "All candidates are in trials.csv." in shown
    assert f"{len(ALL)} candidates: " in shown
    assert "c" * 10 not in shown


def test_choices_of_any_space_read_well() -> None:
    choice = {"depth": 3, "branches": [{"op": "pool", "grid": [2, 4], "rate": None}], "cells": ["a", "b"]}
    assert choice_lines(choice) == ["depth: 3", "branches[0]: op pool, grid 2×4", "cells[0]: a", "cells[1]: b"]


def test_a_table_of_classes_is_no_wider_than_the_page() -> None:
    reference = next(row for row in ALL if row.label is not None)
    many = [replace(reference, key=f"reference{i}", label=f"head{i}") for i in range(7)]
    found = tables(page(replace(REPORT, rows=[*many, ALL[1]])))
    assert len(found[0]) == 1 + 1 + 7, "all references are compared"
    by_class = next(table for table in found if table[0][0] == "class")
    assert by_class[0] == ["class", "b" * 10, "head0", "head1", "head2", "head3"]


def test_a_front_tells_what_each_cost_buys() -> None:
    assert "What each cost buys" not in page(REPORT)
    found = tables(page(replace(REPORT, front=True)))
    bought = next(table for table in found if table[0][-1] == "network")
    assert bought[0] == ["MAdds (G)", "mIoU end to end", "best for no more", "network"]
    assert len(bought) > 1
