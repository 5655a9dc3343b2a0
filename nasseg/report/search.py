"""Reports on a running search: live progress, TensorBoard, trials.csv, report.html, the final table."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

import torch
import yaml
from typing_extensions import Self

from nasseg.data import Split, normalise
from nasseg.experiment.experiment import Experiment
from nasseg.experiment.results import Results
from nasseg.network import Network
from nasseg.planning.candidates import Trial
from nasseg.planning.job import Outcome
from nasseg.report.figures.pictures import Example, Palette
from nasseg.report.live import LiveProgress, Progress
from nasseg.report.page.html import Report, write_report
from nasseg.report.plan_text import plan_text, training_text
from nasseg.report.progress import at_this_time, progress
from nasseg.report.relaxation import RelaxationReporter, snapshots
from nasseg.report.rows import Row, make_row, name_of
from nasseg.report.table import front_table, summary_table, write_trials
from nasseg.report.tensorboard import SearchBoard
from nasseg.run_folder import BEST_FILE, LOG_FILE, REPORT_FILE, TENSORBOARD_FOLDER, TRIALS_FILE
from nasseg.space.weighted_graph import WeightedGraph

EXAMPLES = 3
"""Number of images whose predictions are shown, always the same."""
TICK_INTERVAL_S = 1.0
PAGE_INTERVAL_S = 30.0
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
    """

    def __init__(self, search: Experiment) -> None:
        self.search = search
        self._board: SearchBoard | None = None
        self._relaxations = RelaxationReporter(search.folder)
        self._live = LiveProgress()
        self._progress: Progress | None = None
        self._drawing = threading.Lock()  # matplotlib is not thread-safe
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._shown_best: str | None = None
        self._shown_results: Results | None = None
        self._rows: dict[str, tuple[object, Row]] = {}
        """The rows so far, each with what it depends on."""
        self._written = 0.0
        self._log = logging.FileHandler(search.folder / LOG_FILE, encoding="utf-8", delay=True)
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logged = {line[:3] for line in self._outcomes()}

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
            self._show_all(self._board)
            self._board.close()
        logger.removeHandler(self._log)
        self._log.close()

    # --- as it goes on ---------------------------------------------------------------------------------------------

    def update(self, search: Experiment) -> None:
        """Show what is new; called after every change."""
        self._progress = progress(search, self._progress)
        self._live.update(self._progress)
        if search.results is self._shown_results:
            return
        self._shown_results = search.results
        self._log_new()
        score = search.results.best_score
        if score is None or self._board is None:
            return
        rows = self.rows
        self._board.add_trials(rows)
        step = round(search.elapsed_seconds)
        baseline = _baseline_of(rows)
        self._board.add_best(score, baseline.score if baseline else None, step)
        if time.monotonic() - self._written > PAGE_INTERVAL_S:
            with self._drawing:
                self._show_all(self._board)
            self._written = time.monotonic()

    def _tick(self) -> None:
        """Keep the clock going and show the relaxations while jobs run."""
        while not self._ended.wait(TICK_INTERVAL_S):
            with self._drawing:
                self._relaxations.update()
            if self._progress is not None:
                self._live.update(at_this_time(self._progress, self.search))

    def _outcomes(self) -> Iterator[tuple[str, str, int, Outcome]]:
        """Yield all outcomes: the candidate's name, the kind of training, the step or seed, the outcome."""
        for trial in self.search.results.trials:
            name = name_of(trial.candidate)
            yield from (
                (name, f"{self.search.rung_runs}, step", step, outcome) for step, outcome in trial.proxy.items()
            )
            yield from ((name, "end to end, seed", seed, outcome) for seed, outcome in trial.full.items())

    def _log_new(self) -> None:
        for name, what, number, outcome in self._outcomes():
            if (name, what, number) not in self._logged:
                self._logged.add((name, what, number))
                result = f"mIoU {outcome.miou:.4f}" if outcome.miou is not None else outcome.message or outcome.status
                logger.info("%s %s %d: %s", name, what, number, result)

    def _show_all(self, board: SearchBoard) -> None:
        """Write the report and draw the pictures, if there is anything to show."""
        search, best = self.search, self.search.results.best
        if best is None:
            return
        self.write()
        step = round(search.elapsed_seconds)
        board.add_front(self.rows, step)
        if best.candidate.key == self._shown_best:
            return
        self._shown_best = best.candidate.key
        board.add_best_network(search.architecture(best), search.problem.space.drawn_place, self.graphs(best), step)
        network = search.best_network()
        if network is not None:
            board.add_predictions(example_predictions(self.search.problem.val, network), self.palette, step)

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
        search = self.search
        for trial in search.results.trials:
            known = len(trial.proxy), len(trial.full), trial.key in search.latencies
            if trial.key not in self._rows or self._rows[trial.key][0] != known:
                row = make_row(
                    trial,
                    search.plan.rungs[-1],
                    search.results.score(trial),
                    search.latencies.get(trial.key),
                    search.rung_runs,
                )
                self._rows[trial.key] = known, row
        first = [trial.key for trial in search.results.references.values()]
        others = [trial.key for trial in search.results.trials if trial.candidate.label is None]
        return [self._rows[key][1] for key in (*first, *others)]

    @property
    def baseline(self) -> Row | None:
        """The handcrafted reference to beat."""
        return _baseline_of(self.rows)

    def write(self) -> None:
        """Write `trials.csv` and `report.html`."""
        search, best = self.search, self.search.results.best
        write_trials(search.folder / TRIALS_FILE, self.rows, search.plan.rungs)
        if best is None:
            return
        report = Report(
            title=f"{search.config.space} on {search.config.data}",
            rows=self.rows,
            rungs=search.plan.rungs,
            best=best.candidate.key,
            classes=search.problem.dataset.classes,
            history=[(seconds / 60, score) for seconds, score in search.history],
            config=yaml.safe_dump(search.config.model_dump(mode="json"), sort_keys=False),
            architecture=search.architecture(best),
            place=search.problem.space.drawn_place,
            graphs=self.graphs(best),
            trust=search.results.trust,
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
        tried, expected = len(search.results.trials), search.plan.expected_candidates
        used = f"{search.spent:.0%} of {search.config.budget} used"
        forecast = "" if expected is None else f", about {expected} expected; {used}"
        console.print(summary_table(self.compared(), title=f"{tried} candidate{'s' * (tried > 1)} tried{forecast}"))
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
        for agreement in search.results.trust.agreements:
            if agreement.spearman is not None and agreement.points >= FEWEST_RANKED:
                console.print(
                    f"rank correlation, {agreement.lower} and {agreement.upper}: {agreement.spearman:.2f} "
                    f"({agreement.points} candidates)"
                )
        if search.results.trust.seed_deviation is not None:
            console.print(f"mIoU of one network differs between seeds by {search.results.trust.seed_deviation:.4f}")
        best = self.compared()[0]
        if best.label is not None:
            console.print(f"The handcrafted {best.name} remains the best.")
        console.print(f"report: {search.folder / REPORT_FILE}", soft_wrap=True)
        console.print(f"retrain it:\n  nasseg retrain {search.folder / BEST_FILE}", soft_wrap=True)

    def summary(self) -> dict[str, object]:
        """Summarise the search as `print_summary` does, as a JSON document."""
        search, best = self.search, self.search.results.best
        return {
            "folder": str(search.folder),
            "best": best.candidate.key if best else None,
            "networks": [
                {name: getattr(row, name) for name in SUMMARISED} | {"full_miou_by_seed": list(row.full.values())}
                for row in self.compared()
            ],
            "candidates": len(search.results.trials),
            "trust": search.results.trust.model_dump(mode="json"),
            "elapsed_seconds": round(search.elapsed_seconds, 1),
        }


def _baseline_of(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.label is not None), None)


def example_predictions(split: Split, network: Network) -> list[Example]:
    """Segment a few images of a split, always the same ones."""
    step = max(1, len(split) // EXAMPLES)
    examples = []
    for sample in (split[index] for index in range(0, step * min(EXAMPLES, len(split)), step)):
        with torch.inference_mode():
            prediction = network(normalise(sample.image[None])).argmax(1)[0].to(torch.uint8)
        examples.append(Example(name=sample.name, image=sample.image, truth=sample.mask, prediction=prediction))
    return examples
