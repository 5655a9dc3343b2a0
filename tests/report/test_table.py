import csv
import json
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from baselines.dense_prediction_cell import ASPP, Cell
from nasseg.experiment.trust import Gain
from nasseg.report.table import front_table, gain_text, summary_table, write_trials
from tests.report.made_up import RUNGS, rows


def test_every_candidate_is_a_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    write_trials(path, rows(), RUNGS)
    with path.open(newline="") as file:
        aspp, best, stopped, broken, running = csv.DictReader(file)
    assert aspp["key"] == "a" * 20
    assert (aspp["label"], aspp["status"], aspp["step_reached"]) == ("aspp", "complete", "300")
    assert (aspp["proxy_miou_step_100"], aspp["proxy_miou_step_300"]) == ("0.5", "0.6")
    assert (aspp["full_miou_mean"], aspp["full_seeds"]) == ("0.71", "2")
    assert abs(float(aspp["full_miou_std"]) - 0.0002**0.5) < 1e-12
    assert (aspp["params"], aspp["madds"], aspp["latency_ms"]) == ("3500000", "2000000000", "30.0")
    assert aspp["predicted_latency_ms"] == ""
    assert Cell.model_validate(json.loads(aspp["choice"])) == ASPP
    assert best["score"] == "0.76"
    assert (stopped["status"], stopped["step_reached"], stopped["proxy_miou_step_300"]) == ("stopped", "100", "")
    assert (broken["status"], broken["message"]) == ("nonfinite", "the loss is nan at step 37")
    assert (running["status"], running["step_reached"], running["full_seeds"]) == ("running", "", "0")
    assert list(tmp_path.iterdir()) == [path]


def test_the_final_table_shows_all_that_counts() -> None:
    aspp, best, *_ = rows()
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(summary_table([best, aspp], "Result"))
    lines = [re.split(r" {2,}", line.strip()) for line in capture.get().splitlines() if re.search(r"\d", line)]
    assert lines == [
        ["b" * 10, "0.6500", "0.7600 ± 0.0141", "3.50 M", "1.00 G", "20.0 ms"],
        ["aspp", "0.6000", "0.7100 ± 0.0141", "3.50 M", "2.00 G", "30.0 ms"],
    ]


def test_numbers_stay_with_their_units_in_a_narrow_terminal() -> None:
    aspp, best, *_ = (replace(row, fresh={1000: 0.7}, predicted_latency_ms=19.5) for row in rows())
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(summary_table([best, replace(aspp, label="deeplabv3plus-scaled")]))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    for cells in (
        ("0.6500", "0.7600", "0.7000", "3.50 M", "1.00 G", "20.0 ms (19.5)"),
        ("deeplabv3plus-scaled", "0.6000", "0.7100", "0.7000", "3.50 M", "2.00 G", "30.0 ms (19.5)"),
    ):
        assert any(all(cell in line for cell in cells) for line in lines)


def test_what_is_unknown_is_a_dash() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(summary_table(rows()[3:4]))
    assert capture.get().count("–") == 5


def test_what_a_table_predicts_is_shown_beside_what_was_measured(tmp_path: Path) -> None:
    predicted = [replace(row, predicted_latency_ms=12.5) for row in rows()[:2]]
    table = summary_table(predicted)
    assert str(table.columns[-1].header) == "latency\n(predicted)"
    assert list(table.columns[-1].cells) == ["30.0 ms (12.5)", "20.0 ms (12.5)"]
    write_trials(tmp_path / "trials.csv", predicted, RUNGS)
    with (tmp_path / "trials.csv").open(newline="") as file:
        assert [row["predicted_latency_ms"] for row in csv.DictReader(file)] == ["12.5", "12.5"]


def test_fresh_seeds_have_a_column_and_a_line_that_calls_ties_ties(tmp_path: Path) -> None:
    aspp, best, *_ = rows()
    both = [replace(best, fresh={1000: 0.7, 1001: 0.74}), replace(aspp, fresh={1000: 0.7})]
    table = summary_table(both)
    column = next(column for column in table.columns if column.header == "fresh seeds")
    assert list(column.cells) == ["0.7200", "0.7000"]
    write_trials(tmp_path / "trials.csv", both, RUNGS)
    with (tmp_path / "trials.csv").open(newline="") as file:
        cells = [(row["fresh_miou_mean"], row["fresh_seeds"]) for row in csv.DictReader(file)]
    assert cells == [("0.72", "2"), ("0.7", "1")]
    gain = Gain(found=best.key, baseline="aspp", miou=0.02, seeds=(2, 1), interval=(-0.01, 0.05))
    tie = "on fresh seeds (2 and 1): +0.0200 mIoU, 95 % interval -0.0100 to +0.0500: a tie"
    assert gain_text(gain, both) == f"{'b' * 10} against aspp {tie}"
    assert gain_text(gain.model_copy(update={"interval": None}), both).endswith("(2 and 1): +0.0200 mIoU")


def test_what_each_cost_buys_is_the_front_with_the_references_in_it() -> None:
    reference, good, *_ = [replace(row, latency=None, predicted_latency_ms=20.0) for row in rows()]
    made = [
        replace(reference, full={0: 0.71}),
        replace(good, key="worse" * 4, full={0: 0.5}, predicted_latency_ms=15.0),
        replace(good, key="cheap" * 4, full={0: 0.6}, predicted_latency_ms=10.0),
        replace(good, key="beyond" * 4, full={0: 0.9}, predicted_latency_ms=18.0, feasible=False),
        replace(good, key="equal" * 4, full={0: 0.75}, predicted_latency_ms=20.0),
        replace(reference, label="large", full={0: 0.73}, predicted_latency_ms=40.0),
    ]
    table = front_table(made)
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    assert table.columns[0].header == "predicted latency (ms)"
    assert cells == [
        ("10.00", "0.6000", "0.6000", "cheapcheap"),
        ("20.00", "0.7500", "0.7500", "equalequal"),
        ("20.00", "0.7100", "0.7500", "aspp"),
        ("40.00", "0.7300", "0.7500", "large"),
    ]
    assert front_table(rows()).columns[0].header == "MAdds (G)"
    assert front_table(rows()[2:]).row_count == 0
