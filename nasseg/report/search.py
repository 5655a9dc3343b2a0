"""Reports on a running search: live progress, TensorBoard, trials.csv, report.html, the final table."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import torch
import yaml
from typing_extensions import Self

from nasseg.data import Split, normalise
from nasseg.experiment.experiment import Experiment
from nasseg.experiment.trust import Gain
from nasseg.network import Network
from nasseg.planning.candidates import Trial
from nasseg.planning.job import Outcome
from nasseg.report.figures.pictures import Example, Palette
from nasseg.report.kept_rows import KeptRows
from nasseg.report.live import LiveProgress, Progress
from nasseg.report.page.html import Report, write_report
from nasseg.report.progress import at_this_time, progress
from nasseg.report.relaxation import RelaxationReporter, snapshots
from nasseg.report.rows import Row, name_of
from nasseg.report.table import front_table, gain_text, summary_table, write_trials
from nasseg.report.tensorboard import SearchBoard
from nasseg.report.texts import plan_text, resume_command, training_text
from nasseg.run_folder import BEST_FILE, LOG_FILE, REPORT_FILE, TENSORBOARD_FOLDER, TRIALS_FILE
from nasseg.space.weighted_graph import WeightedGraph

EXAMPLES = 3
"""Number of images whose predictions are shown, always the same."""
TICK_INTERVAL_S = 1.0
VIEWS_INTERVAL_S = 30.0
MOST_VIEWS_SHARE = 0.05
"""Share of the time for the page, the table and TensorBoard, which then come less often than `VIEWS_INTERVAL_S`."""
MOST_RUNS = 50
"""Candidates with a TensorBoard run of their own, the best."""
FEWEST_RANKED = 5
"""Number of candidates below which a rank correlation is not worth a line."""

SUMMARISED = (
    *("key", "name", "proxy_miou", "full_miou", "params", "madds"),
    *("latency_ms", "predicted_latency_ms", "feasible"),
)
"""Fields of a row in the summary."""

logger = logging.getLogger("nasseg")


class SearchReporter:
    """A reporter on a search in its run folder.

    with SearchReporter(search) as reporter:
        search.run(stop, reporter.update)

    The live progress and the log show every result at once. `report.html`, `trials.csv` and TensorBoard are views of
    all candidates, so a thread of their own makes them anew from time to time, and the exit once more.
    """

    def __init__(self, search: Experiment) -> None:
        self.search = search
        self._board: SearchBoard | None = None
        self._relaxations = RelaxationReporter(search.folder)
        self._live = LiveProgress()
        self._progress: Progress | None = None
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._shown_best: str | None = None
        self._predictions: tuple[str, list[Example]] | None = None
        """What the best network predicts, once it is trained end to end, with its key."""
        self._shown_predictions: tuple[str, list[Example]] | None = None
        self._rows = KeptRows(search)
        self._best: Trial | None = None
        """The best so far, as the thread of the views sees it."""
        self._gain: Gain | None = None
        self._due = 0.0
        self._log = logging.FileHandler(search.folder / LOG_FILE, encoding="utf-8", delay=True)
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logged = {line[:3] for line in self._outcomes(search.results.trials)}

    def __enter__(self) -> Self:
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        self._board = SearchBoard(self.search.folder / TENSORBOARD_FOLDER)
        self._live.__enter__()
        self._live.print(plan_text(self.search))
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._ticker.join()
        self._live.__exit__(kind, error, traceback)
        if self._board is not None:
            self._relaxations.close()
            if kind is not KeyboardInterrupt:  # it ends at once
                self._catch_up()
                self._show_all(self._board)
            self._board.close()
        logger.removeHandler(self._log)
        self._log.close()

    # --- as it goes on ---------------------------------------------------------------------------------------------

    def update(self, search: Experiment) -> None:
        """Show what is new; called after every change."""
        self._progress = progress(search, self._progress)
        self._live.update(self._progress)
        self._catch_up()

    def _tick(self) -> None:
        """Keep the clock going, and show the relaxations and the views while jobs run."""
        while not self._ended.wait(TICK_INTERVAL_S):
            self._relaxations.update()
            if self._progress is not None:
                self._live.update(at_this_time(self._progress, self.search))
            start = time.monotonic()
            if self._board is not None and self._best is not None and start >= self._due:
                self._show_all(self._board)
                now = time.monotonic()
                self._due = now + max(VIEWS_INTERVAL_S, (now - start) / MOST_VIEWS_SHARE)

    def _catch_up(self) -> None:
        """Take in what is new; all else is read by the thread of the views too."""
        self._log_new(self._rows.catch_up())
        best = self.search.results.best
        self._best = None if best is None else best.copied()
        self._gain = self.search.results.gain
        if self._board is not None:
            self._predict()

    def _outcomes(self, trials: Iterable[Trial]) -> Iterator[tuple[str, str, int, Outcome]]:
        """Yield all outcomes: the candidate's name, the kind of training, the step or seed, the outcome."""
        for trial in trials:
            name = name_of(trial.candidate)
            yield from (
                (name, f"{self.search.rung_runs}, step", step, outcome) for step, outcome in trial.proxy.items()
            )
            yield from ((name, "end to end, seed", seed, outcome) for seed, outcome in trial.full.items())

    def _log_new(self, changed: Iterable[Trial]) -> None:
        for name, what, number, outcome in self._outcomes(changed):
            if (name, what, number) not in self._logged:
                self._logged.add((name, what, number))
                result = f"mIoU {outcome.miou:.4f}" if outcome.miou is not None else outcome.message or outcome.status
                logger.info("%s %s %d: %s", name, what, number, result)

    def _predict(self) -> None:
        """Note what a new best network predicts, in this thread: for another, PyTorch would keep a second team."""
        best, predictions = self._best, self._predictions
        if best is None or not best.full or (predictions is not None and predictions[0] == best.key):
            return
        network = self.search.best_network()
        if network is not None:
            self._predictions = best.key, example_predictions(self.search.problem.val, network)

    def _show_all(self, board: SearchBoard) -> None:
        """Write the report and draw the pictures, if there is anything to show."""
        search, best = self.search, self._best
        if best is None:
            return
        rows, baseline = self._rows.rows, self._rows.baseline
        self._write(rows, best)
        step = round(search.elapsed_seconds)
        shown = {trial.key for trial in search.results.ranked[:MOST_RUNS]}
        board.show_trials([row for row in rows if row.label is not None or row.key in shown])
        board.add_best(
            next(row.score for row in rows if row.key == best.key), baseline.score if baseline else None, step
        )
        board.add_front(rows, step)
        if best.key != self._shown_best:
            self._shown_best = best.key
            board.add_best_network(search.architecture(best), search.problem.space.drawn_place, self.graphs(best), step)
        predictions = self._predictions
        if predictions is not None and predictions is not self._shown_predictions:
            self._shown_predictions = predictions
            board.add_predictions(predictions[1], self.palette, step)

    # --- the whole -------------------------------------------------------------------------------------------------

    @property
    def palette(self) -> Palette:
        """Names and colours of the data's classes."""
        dataset = self.search.problem.dataset
        return Palette(classes=dataset.classes, colours=dataset.palette, ignore_index=dataset.ignore_index)

    def graphs(self, trial: Trial) -> tuple[WeightedGraph, ...]:
        """Return the space's drawings of a candidate."""
        graphs: tuple[WeightedGraph, ...] = self.search.problem.space.graphs(trial.choice)
        return graphs

    @property
    def rows(self) -> list[Row]:
        """One row per candidate: the references, the baseline first, then the others in the order of trial."""
        self._catch_up()
        return self._rows.rows

    @property
    def baseline(self) -> Row | None:
        """The handcrafted reference to beat."""
        self._catch_up()
        return self._rows.baseline

    def write(self) -> None:
        """Write `trials.csv` and `report.html`."""
        rows = self.rows
        self._write(rows, self._best)

    def _write(self, rows: Sequence[Row], best: Trial | None) -> None:
        search = self.search
        write_trials(search.folder / TRIALS_FILE, rows, search.plan.rungs)
        if best is None:
            return
        report = Report(
            title=f"{search.config.space} on {search.config.data}",
            rows=rows,
            rungs=search.plan.rungs,
            best=best.key,
            classes=search.problem.dataset.classes,
            history=[(seconds / 60, score) for seconds, score in search.history],
            config=yaml.safe_dump(search.config.model_dump(mode="json"), sort_keys=False),
            architecture=search.architecture(best),
            place=search.problem.space.drawn_place,
            graphs=self.graphs(best),
            trust=search.results.trust,
            gain=self._gain,
            relaxations=snapshots(search.folder),
            limits=str(search.config.limits),
            training=training_text(search),
            front=search.objective.aim == "pareto",
        )
        write_report(search.folder / REPORT_FILE, report)

    def compared(self) -> list[Row]:
        """List the best candidate's row, then the references'."""
        best = self.search.results.best
        key = best.candidate.key if best else None
        return sorted(
            (row for row in self.rows if row.key == key or row.label is not None), key=lambda row: row.key != key
        )

    def print_summary(self) -> None:
        """Print the best against the references, how far to trust the proxy, and what to do next."""
        search, console = self.search, self._live.console
        if search.results.best is None:
            console.print("no candidate was trained; give a larger --budget")
            return
        tried, own, expected = len(search.results.trials), search.results.own, search.plan.expected_candidates
        used = f"{search.spent:.0%} of {search.config.budget} used"
        forecast = "" if expected is None else f", about {expected} expected; {used}"
        here = "" if own == tried else f" in the study, {own} by this search"
        title = f"{tried} candidate{'s' * (tried > 1)} tried{here}{forecast}"
        console.print(summary_table(self.compared(), title=title))
        if search.objective.aim == "pareto":
            console.print(front_table(self.rows))
        if search.problem.pricing.table is not None:
            conditions = search.problem.pricing.table.conditions
            latency = search.latencies.get(self.compared()[0].key)
            measured = f"; measured on {latency.device} ({latency.dtype}, {latency.backend})" if latency else ""
            console.print(
                f"latency predicted for {conditions.device} ({conditions.dtype}, {conditions.backend}){measured}"
            )
        for row in self.compared():
            if not row.feasible:
                console.print(f"The handcrafted {row.name} breaks a limit ({search.config.limits}), so it cannot win.")
        if (gain := search.results.gain) is not None:
            console.print(gain_text(gain, self.rows))
        elif search.results.best.full:
            console.print("No time was left for fresh seeds, so the mIoU of the best is partly the luck of the choice.")
            go_on = resume_command(search, search.config.budget.times(2))
            console.print(f"go on:\n  {go_on}", soft_wrap=True)
        if (overruled := search.results.overruled) is not None:
            console.print(
                f"{name_of(overruled.candidate)} has a higher mean score end to end, but proxies and the noise between "
                "seeds speak for the best."
            )
        trust = search.results.trust
        for agreement in trust.agreements:
            if agreement.spearman is not None and agreement.points >= FEWEST_RANKED:
                console.print(
                    f"rank correlation, {agreement.lower} and {agreement.upper}: {agreement.spearman:.2f} "
                    f"({agreement.points} candidates)"
                )
        if trust.seed_deviation is not None:
            console.print(f"mIoU of one network differs between seeds by {trust.seed_deviation:.4f}")
        best = self.compared()[0]
        if best.label is not None:
            console.print(f"The handcrafted {best.name} remains the best{self._despite(best)}.")
        if search.results.best.full and search.model_of(search.results.best) is None:
            console.print("Another search of the study trained the best end to end, and has its weights.")
        console.print(f"report: {search.folder / REPORT_FILE}", soft_wrap=True)
        weights = search.config.class_weights
        again = "" if weights is None else f" --class-weights {weights}"
        console.print(f"retrain it:\n  nasseg retrain {search.folder / BEST_FILE}{again}", soft_wrap=True)

    def _despite(self, best: Row) -> str:
        """Say why the best is not the one with the highest mIoU within the limits, if it is not."""
        others = [row.full_miou for row in self.compared() if row.full_miou is not None and row.feasible]
        if best.full_miou is None or max(others) <= best.full_miou:
            return ""
        return " by its score, which weighs mIoU against cost (--cost-weight)"

    def summary(self) -> dict[str, object]:
        """Summarise the search as `print_summary` does, as a JSON document."""
        search, best = self.search, self.search.results.best
        return {
            "folder": str(search.folder),
            "best": best.candidate.key if best else None,
            "networks": [
                {name: getattr(row, name) for name in SUMMARISED}
                | {"full_miou_by_seed": list(row.full.values()), "fresh_miou_by_seed": list(row.fresh.values())}
                for row in self.compared()
            ],
            "gain": None if (gain := search.results.gain) is None else gain.model_dump(mode="json"),
            "candidates": len(search.results.trials),
            "trust": search.results.trust.model_dump(mode="json"),
            "elapsed_seconds": round(search.elapsed_seconds, 1),
        }


def example_predictions(split: Split, network: Network) -> list[Example]:
    """Segment a few images of a split, always the same ones."""
    step = max(1, len(split) // EXAMPLES)
    examples = []
    for sample in (split[index] for index in range(0, step * min(EXAMPLES, len(split)), step)):
        with torch.inference_mode():
            prediction = network(normalise(sample.image[None])).argmax(1)[0].to(torch.uint8)
        examples.append(Example(name=sample.name, image=sample.image, truth=sample.mask, prediction=prediction))
    return examples
