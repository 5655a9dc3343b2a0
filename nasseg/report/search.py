"""What a search shows as it goes on: live progress, TensorBoard, trials.csv, report.html, the final table."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
import yaml
from typing_extensions import Self

from nasseg.data import normalise
from nasseg.experiment.experiment import Search, miou
from nasseg.planning.job import Outcome, Trial
from nasseg.report.figures.pictures import Example, Palette
from nasseg.report.live import LiveProgress, Progress
from nasseg.report.page.html import Report, write_report
from nasseg.report.relaxation import RelaxationReporter, snapshots
from nasseg.report.rows import Row, make_rows, name_of
from nasseg.report.table import summary_table, write_trials
from nasseg.report.tensorboard import SearchBoard
from nasseg.space.weighted_graph import WeightedGraph

EXAMPLES = 3
"""Images whose predictions are shown, always the same."""
TICK_INTERVAL_S = 1.0
PAGE_INTERVAL_S = 30.0
FEWEST_RANKED = 5
"""Candidates below which a rank correlation is not worth a line."""
FEWEST_RELAX_STEPS = 100
"""Steps of a relaxation below which its plan comes with a warning."""
PHASES = {
    "prepare": "training the handcrafted reference",
    "relax": "training relaxations",
    "proxy": "proxy trials",
    "full": "training end to end",
}

logger = logging.getLogger("nasseg")


class SearchReporter:
    """Reports on a search in its run folder.

    with SearchReporter(search) as reporter:
        search.run(stop, reporter.update)
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._board: SearchBoard | None = None
        self._relaxations = RelaxationReporter(search.folder)
        self._live = LiveProgress()
        self._progress: Progress | None = None
        self._drawing = threading.Lock()  # matplotlib is for one thread at a time
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._shown_best: str | None = None
        self._written = 0.0
        self._log = logging.FileHandler(search.folder / "log.txt", encoding="utf-8", delay=True)
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logged = {line[:3] for line in self._outcomes()}

    def __enter__(self) -> Self:
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        self._board = SearchBoard(self._search.folder / "tensorboard")
        self._live.__enter__()
        self._live.print(plan_text(self._search))
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

    def update(self, search: Search) -> None:
        """Show what is new; called after every change."""
        self._log_new()
        self._progress = progress(search)
        self._live.update(self._progress)
        if search.best is None or self._board is None:
            return
        self._board.add_trials(self.rows)
        step = round(search.elapsed_seconds)
        baseline = self.baseline
        self._board.add_best(search.best_score, baseline.score if baseline else None, step)
        if time.monotonic() - self._written > PAGE_INTERVAL_S:
            with self._drawing:
                self._show_all(self._board)
            self._written = time.monotonic()

    def _tick(self) -> None:
        """Keep the clock going, and show the relaxations, while jobs run."""
        while not self._ended.wait(TICK_INTERVAL_S):
            with self._drawing:
                self._relaxations.update()
            if self._progress is not None:
                self._live.update(at_this_time(self._progress, self._search))

    def _outcomes(self) -> Iterator[tuple[str, str, int, Outcome]]:
        """All outcomes: the candidate's name, of what kind of training, at which step or with which seed."""
        for trial in self._search.trials:
            name = name_of(trial.candidate)
            yield from ((name, "proxy", step, outcome) for step, outcome in trial.proxy.items())
            yield from ((name, "end to end, seed", seed, outcome) for seed, outcome in trial.full.items())

    def _log_new(self) -> None:
        for name, what, number, outcome in self._outcomes():
            if (name, what, number) not in self._logged:
                self._logged.add((name, what, number))
                result = f"mIoU {outcome.miou:.4f}" if outcome.miou is not None else outcome.message or outcome.status
                logger.info("%s %s %d: %s", name, what, number, result)

    def _show_all(self, board: SearchBoard) -> None:
        """Write the report and draw the pictures, if there is anything to show."""
        search, best = self._search, self._search.best
        if best is None:
            return
        self.write()
        step = round(search.elapsed_seconds)
        board.add_front(self.rows, step)
        if best.candidate.key == self._shown_best:
            return
        self._shown_best = best.candidate.key
        board.add_best_network(search.architecture(best), search.space.drawn_place, self.graphs(best), step)
        network = search.best_network()
        if network is not None:
            board.add_predictions(self._examples(network), self.palette, step)

    def _examples(self, network: torch.nn.Module) -> list[Example]:
        val = self._search.dataset.split(self._search.config.val_split)
        step = max(1, len(val) // EXAMPLES)
        examples = []
        for sample in (val[index] for index in range(0, step * min(EXAMPLES, len(val)), step)):
            with torch.inference_mode():
                prediction = network(normalise(sample.image[None])).argmax(1)[0].to(torch.uint8)
            examples.append(Example(name=sample.name, image=sample.image, truth=sample.mask, prediction=prediction))
        return examples

    # --- the whole -------------------------------------------------------------------------------------------------

    @property
    def palette(self) -> Palette:
        """Names and colours of the data's classes."""
        dataset = self._search.dataset
        return Palette(classes=dataset.classes, colours=dataset.palette, ignore_index=dataset.ignore_index)

    def graphs(self, trial: Trial) -> tuple[WeightedGraph, ...]:
        """The space's drawings of a candidate."""
        space = self._search.space
        return space.graphs(space.parse(trial.candidate.choice))

    @property
    def rows(self) -> list[Row]:
        """One row a candidate, in the order in which they were tried."""
        search = self._search
        return make_rows(search.trials, search.plan.rungs, self._score, search.latencies)

    @property
    def baseline(self) -> Row | None:
        """The handcrafted reference to beat."""
        return next((row for row in self.rows if row.label is not None), None)

    def _score(self, trial: Trial) -> float | None:
        merit = self._search.merit(trial)
        return merit[-1] if merit else None

    def write(self) -> None:
        """Write `trials.csv` and `report.html`."""
        search, best = self._search, self._search.best
        write_trials(search.folder / "trials.csv", self.rows, search.plan.rungs)
        if best is None:
            return
        report = Report(
            title=f"{search.config.space} on {search.config.data}",
            rows=self.rows,
            rungs=search.plan.rungs,
            best=best.candidate.key,
            classes=search.dataset.classes,
            history=[(seconds / 60, score) for seconds, score in search.history],
            budget_unit="min",
            config=yaml.safe_dump(search.config.model_dump(mode="json"), sort_keys=False),
            architecture=search.architecture(best),
            place=search.space.drawn_place,
            graphs=self.graphs(best),
            trust=search.trust,
            relaxations=snapshots(search.folder),
            limits=str(search.config.limits),
        )
        write_report(search.folder / "report.html", report)

    def compared(self) -> list[Row]:
        """The best candidate's row, then the references'."""
        best = self._search.best
        key = best.candidate.key if best else None
        return sorted(
            (row for row in self.rows if row.key == key or row.label is not None), key=lambda row: row.key != key
        )

    def print_summary(self) -> None:
        """Print the best against the references, how far the proxy is to be trusted, and what to do next."""
        search, console = self._search, self._live.console
        if search.best is None:
            console.print("no candidate was trained; give a larger --budget")
            return
        console.print(summary_table(self.compared(), title=f"{len(search.trials)} candidates tried"))
        if search.pricing.table is not None:
            conditions = search.pricing.table.conditions
            latency = search.latencies.get(self.compared()[0].key)
            measured = f"; measured on {latency.device} ({latency.dtype}, {latency.backend})" if latency else ""
            console.print(
                f"latency predicted for {conditions.device} ({conditions.dtype}, {conditions.backend}){measured}"
            )
        for row in self.compared():
            if not row.feasible:
                console.print(f"The handcrafted {row.name} breaks a limit ({search.config.limits}), so it cannot win.")
        for agreement in search.trust.agreements:
            if agreement.spearman is not None and agreement.points >= FEWEST_RANKED:
                console.print(
                    f"rank correlation, {agreement.lower} and {agreement.upper}: {agreement.spearman:.2f} "
                    f"({agreement.points} candidates)"
                )
        if search.trust.seed_deviation is not None:
            console.print(f"mIoU of one network differs between seeds by {search.trust.seed_deviation:.4f}")
        baseline = next((row for row in self.compared() if row.label is not None), None)
        best = self.compared()[0]
        if baseline is not None and baseline.key == best.key:
            console.print(f"The handcrafted {baseline.name} stays the best.")
        console.print(f"report: {search.folder / 'report.html'}", soft_wrap=True)
        console.print(f"retrain it:\n  nasseg retrain {search.folder / 'best.json'}", soft_wrap=True)

    def summary(self) -> dict[str, Any]:
        """The same as `print_summary`, as a JSON document."""
        search, best = self._search, self._search.best
        return {
            "folder": str(search.folder),
            "best": best.candidate.key if best else None,
            "networks": [
                {
                    "key": row.key, "name": row.name, "proxy_miou": row.proxy_miou, "full_miou": row.full_miou,
                    "full_miou_by_seed": list(row.full.values()), "params": row.params, "madds": row.madds,
                    "latency_ms": row.latency_ms, "predicted_latency_ms": row.predicted_latency_ms,
                    "feasible": row.feasible,
                }
                for row in self.compared()
            ],
            "candidates": len(search.trials),
            "trust": search.trust.model_dump(mode="json"),
            "elapsed_seconds": round(search.elapsed_seconds, 1),
        }  # fmt: skip


def progress(search: Search) -> Progress:
    """Where the search stands."""
    in_flight = search.planner.in_flight
    tasks = {job.task for job in in_flight}
    waiting = "finishing" if search.planner.done else PHASES["proxy"]
    phase = next((text for task, text in PHASES.items() if task in tasks), waiting)
    rows = make_rows(search.trials, search.plan.rungs, lambda trial: None, {})
    count = {
        status: sum(row.status == status for row in rows) for status in ("complete", "stopped", "nonfinite", "failed")
    }
    budget = search.config.budget
    baseline = next((t for t in search.trials if t.candidate.label is not None), None)
    timed = budget.trials is None
    shown = Progress(
        phase=phase,
        spent=len(rows),
        budget=search.total_seconds / 60 if timed else budget.amount,
        unit="min" if timed else "trials",
        done=count["complete"],
        running=sum(max(1, len(job.candidates)) for job in in_flight),
        stopped=count["stopped"],
        failed=count["nonfinite"] + count["failed"],
        best=miou(search.best) if search.best else None,
        best_name=name_of(search.best.candidate) if search.best else None,
        baseline=miou(baseline) if baseline else None,
        baseline_name=name_of(baseline.candidate) if baseline else None,
    )
    return at_this_time(shown, search)


def at_this_time(shown: Progress, search: Search) -> Progress:
    """The same with the clock's present state, where the budget is one of time."""
    if shown.unit != "min":
        return shown
    left = max(0.0, search.total_seconds - search.elapsed_seconds)
    return replace(shown, spent=search.elapsed_seconds / 60, seconds_left=left)


def plan_text(search: Search) -> str:
    """The dials in a few lines, as a search prints them before it starts."""
    plan, config = search.plan, search.config
    candidates = f"{plan.candidates} candidates" if plan.candidates else "as many candidates as the time allows"
    gradient = ""
    if plan.relax_recipe is not None:
        count, start = plan.relaxations, plan.relax_recipe.first_architecture_step
        candidates += ", the references and what the gradient finds first"
        gradient = (
            f"gradient: {count} relaxation{'s' * (count > 1)}, {plan.relax_steps} steps each, "
            f"the architecture from step {start} on\n"
        )
        if plan.relax_steps < FEWEST_RELAX_STEPS:
            gradient += "too few steps to learn much: give a larger --budget, or a smaller space (see its options)\n"
    size = search.space.size()
    points = "" if size is None else f" ({size:,} points)"
    return (
        f"space {config.space}{points}, data {config.data}, budget {config.budget}\n"
        f"images at {plan.image_scale:g} of their size, crops {'x'.join(map(str, plan.full_recipe.crop))}, "
        f"batches of {plan.full_recipe.batch_size}, {plan.concurrency} jobs at once on {config.torch_device}\n"
        f"{gradient}"
        f"proxy: {candidates}, compared at steps {', '.join(map(str, plan.rungs))}, the best 1/{plan.reduction} go on\n"
        f"end to end: {plan.full_steps} steps, {plan.finalists} finalists and the references, {plan.seeds} seeds each\n"
        f"{_goal_text(search)}\n"
        f"run folder {search.folder}"
    )


def _goal_text(search: Search) -> str:
    """What is maximised, and within which limits."""
    objective, limits, table = search.objective, search.config.limits, search.pricing.table
    if table is None:
        name, cost, unit = "MAdds", objective.reference_cost / 1e9, "G MAdds"
    else:
        name, cost, unit = "latency", objective.reference_cost, f"ms on {table.conditions.device}"
    against = "target" if limits.latency_ms else f"reference {next(iter(search.space.references()))}"
    score = f"{against}: {cost:.2f} {unit}; score = mIoU · ({name} / {against.split()[0]})^{objective.weight:g}"
    aim = f"a front of mIoU and {name}; the best of it by {score}" if objective.aim == "pareto" else score
    return f"{aim}\nlimits: {limits}" if limits.given else aim
