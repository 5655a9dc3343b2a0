"""The progress of a search, for its live display."""

from __future__ import annotations

from dataclasses import replace

from nasseg.experiment.experiment import Experiment
from nasseg.planning.candidates import FIRST_FRESH_SEED
from nasseg.report.live import Progress
from nasseg.report.rows import name_of

PHASES = {
    "prepare": "training the handcrafted reference",
    "relax": "training relaxations",
    "proxy": "proxy trials",
    "full": "training end to end",
    "fresh": "training the best and the baseline with fresh seeds",
}


def progress(search: Experiment, before: Progress | None = None) -> Progress:
    """Count the candidates of a search, and compare the best with the handcrafted reference.

    Between two jobs, the phase of the progress `before` goes on.
    """
    in_flight, results, budget = search.planner.in_flight, search.results, search.config.budget
    tasks = {"fresh" if job.task == "full" and job.seed >= FIRST_FRESH_SEED else job.task for job in in_flight}
    phases = PHASES if search.rung_runs == "proxy" else {**PHASES, "proxy": "short runs"}
    waiting = "finishing" if search.planner.done else before.phase if before else phases["proxy"]
    counts = results.counts
    there, best, baseline = results.leaders()
    timed = budget.trials is None
    shown = Progress(
        phase=next((text for task, text in phases.items() if task in tasks), waiting),
        spent=results.own,
        budget=search.total_seconds / 60 if timed else budget.amount,
        unit="min" if timed else "trials",
        done=counts["complete"],
        running=sum(max(1, len(job.candidates)) for job in in_flight),
        stopped=counts["stopped"],
        failed=counts["nonfinite"] + counts["failed"],
        best=best.miou_at(there) if there and best else None,
        best_name=name_of(best.candidate) if best else None,
        baseline=baseline.miou_at(there) if there and baseline else None,
        baseline_name=name_of(baseline.candidate) if baseline else None,
        compared_at=f"step {there.step}" if there and not there.end_to_end else "",
    )
    return at_this_time(shown, search)


def at_this_time(shown: Progress, search: Experiment) -> Progress:
    """Bring the clock of a budget of time up to date."""
    if shown.unit != "min":
        return shown
    left = max(0.0, search.total_seconds - search.elapsed_seconds)
    return replace(shown, spent=search.elapsed_seconds / 60, seconds_left=left)
