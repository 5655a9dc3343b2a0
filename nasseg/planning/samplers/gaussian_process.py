"""Expected improvement under a Gaussian process, among points that already are within the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from nasseg.cost.calibration import Array
from nasseg.cost.gaussian_process import GaussianProcess
from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.base import Region, with_values
from nasseg.space import Choice, Space
from nasseg.space.decisions import Decision

LEAST_TRIALS = 5
"""Trials with values before the process is asked; until then points are drawn."""
MOST_TRIALS = 300
"""The latest trials with values, from which the process learns."""
DRAWS = 32
"""Random points that are weighed for a proposal; each costs about ten pricings, as each neighbour does."""
PARENTS, NEIGHBOURS = 4, 8
"""The best trials whose neighbours are weighed too, and how many neighbours of each."""
LEAST_DEVIATION = 1e-9


class GaussianProcessSampler:
    """The most expected improvement among points within the limits: random ones, and neighbours of the best.

    As no point is moved after it was weighed, the process weighs what will be trained. Its mean is linear in the
    logarithm of the parameters, which rank networks of equal latency well. What that leaves unexplained, it learns over
    the decisions (Matérn 5/2). They share one length scale, as one for each would need more trials than a search has.

    A trial counts with its value at the highest rung it finished, plus what the rungs above added on average to the
    trials that finished them. What still runs is as if it had its expected value, so that proposals keep away from it.
    Several objectives become one by weights drawn anew for each proposal.

    Sources: Jones et al., Efficient Global Optimization, 1998, section 4 (expected improvement); Ginsbourger et al.,
    Kriging is well-suited to parallelize optimization, 2010 (the expected value for what runs); Knowles, ParEGO, 2006,
    section 3 (several objectives).
    """

    def __init__(self, region: Region) -> None:
        self._region = region

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the point of most expected improvement, or a random one while few trials have values."""
        scored = with_values(history)[-MOST_TRIALS:]
        if len(scored) < LEAST_TRIALS:
            return self._region.draw(rng)
        values = scalarised(at_top(scored), rng)
        best = [scored[place].choice for place in np.argsort(-values, kind="stable")[:PARENTS]]
        candidates = self._candidates(best, {tried.choice for tried in history}, rng)
        running = [tried.choice for tried in history if tried.values is None and not tried.final]
        improvement = self._improvement([tried.choice for tried in scored], values, running, candidates)
        return candidates[int(improvement.argmax())]

    def _candidates(self, best: Sequence[Choice], known: set[Choice], rng: Random) -> list[Choice]:
        """Return points within the limits that are not known, or else any one within the limits."""
        space = self._region.space
        shapes = [space.sample(rng) for _ in range(DRAWS)]
        shapes += [mutated(space, parent, rng) for parent in best for _ in range(NEIGHBOURS)]
        fitted = dict.fromkeys(map(self._region.fit, shapes))
        return [choice for choice in fitted if choice is not None and choice not in known] or [self._region.draw(rng)]

    def _improvement(
        self, tried: Sequence[Choice], values: Array, running: Sequence[Choice], candidates: Sequence[Choice]
    ) -> Array:
        """Compute the expected improvement (candidates,) on the best of the tried ones."""
        choices = [*tried, *running, *candidates]
        points = described(self._region.space, choices)
        log_params = np.log([self._region.params(choice) for choice in (*tried, *candidates)])
        trend = rising(log_params[: len(tried)], values, log_params)
        rest = values - trend[: len(tried)]
        scale = max(float(rest.std()), LEAST_DEVIATION)
        process = GaussianProcess(points[: len(tried)], rest / scale, shared=True)
        at = points[len(tried) + len(running) :]
        centre = trend[len(tried) :] + scale * process.mean(at)
        deviation = scale * process.deviation(at, points[len(tried) : len(tried) + len(running)])
        return expected_improvement(centre - values.max(), np.maximum(deviation, LEAST_DEVIATION))


def mutated(space: Space[Any], choice: Choice, rng: Random) -> Choice:
    """Change one decision at random and keep the others; new ones, and those that cannot be kept, are drawn.

    All decisions are as likely to change, as they are not among all neighbours: a change that opens new decisions has
    thousands there.
    """
    made = space.made(choice)
    kept = {decision.name: decision.options[position] for decision, position in made}
    free = [(d.name, d.options) for d, _ in made if len(d.options) > 1 and d.name != space.dial]
    if free:
        name, options = rng.choice(free)
        kept[name] = rng.choice([option for option in options if option != kept[name]])

    def answer(decision: Decision) -> int:
        options, value = decision.options, kept.get(decision.name)
        return options.index(value) if decision.name in kept and value in options else decision.draw(rng)

    found: Choice = space.choose(answer)
    return found


def described(space: Space[Any], choices: Sequence[Choice]) -> Array:
    """Describe choices by their decisions: (choices, features), at most 1 apart in each decision.

    A decision between ordered options is the position of the option taken, from 0 to 1; any other is a feature per
    option. One that was not taken is at the middle or has no option; the decision that it depends on tells it apart.
    """
    blocks: dict[str, Array] = {}
    for number, choice in enumerate(choices):
        for decision, position in space.made(choice):
            count = len(decision.options)
            absent = np.full((len(choices), 1), 0.5) if decision.ordered else np.zeros((len(choices), count))
            block = blocks.setdefault(decision.parameter, absent)
            if decision.ordered:
                block[number, 0] = position / max(1, count - 1)
            else:
                block[number, position] = math.sqrt(0.5)
    return np.concatenate(list(blocks.values()), axis=1)


def at_top(scored: Sequence[Trial]) -> Array:
    """Estimate what trials would have at the highest rung that any finished: (trials, objectives).

    Comparing the means of two rungs would hide how good the promoted ones are, so each gain is a mean over trials that
    finished both rungs.
    """
    reached = [np.array([*tried.below, tried.values]) for tried in scored]
    values = np.array([tried.values for tried in scored])
    levels = np.array([tried.level for tried in scored])
    for level in range(int(levels.min()), int(levels.max())):
        gains = [each[level] - each[level - 1] for each in reached if len(each) > level]
        if gains:
            values[levels <= level] += np.mean(gains, axis=0)
    return values


def scalarised(values: Array, rng: Random) -> Array:
    """Weigh objectives (trials, objectives) by random weights into one (trials,)."""
    if values.shape[1] == 1:
        return values[:, 0]
    low, spread = values.min(axis=0), np.ptp(values, axis=0)
    lost = 1 - (values - low) / np.where(spread > 0, spread, 1)
    weights = np.array([rng.expovariate(1) for _ in range(values.shape[1])])
    weighted = lost * weights / weights.sum()
    scalar: Array = -(weighted.max(axis=1) + 0.05 * weighted.sum(axis=1))
    return scalar


def rising(x: Array, values: Array, at: Array) -> Array:
    """Fit a line that does not fall to `values` over `x` by least squares, and evaluate it.

    After a start at the most parameters, noise could tilt it the other way, to the smallest networks far off.
    """
    centred = x - x.mean()
    slope = max(0.0, float(centred @ values) / max(float(centred @ centred), LEAST_DEVIATION))
    line: Array = values.mean() + slope * (at - x.mean())
    return line


def expected_improvement(better: Array, deviation: Array) -> Array:
    """Compute E[max(0, x)] of normal x with mean `better` and `deviation`, which must be above 0."""
    z = better / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z])
    improvement: Array = better * below + deviation * density
    return improvement
