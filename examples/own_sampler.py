"""A sampler of one's own: aging evolution, on a score that needs no training.

Run from the repository's root:

    python -m examples.own_sampler

To search with yours by `--sampler aging`, give it as an entry point in your package's `pyproject.toml`:

    [project.entry-points."nasseg.samplers"]
    aging = "examples.own_sampler:Evolution"
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from examples.own_space import TwoRates
from nasseg.planning.candidates import Trial
from nasseg.planning.fitting import Fitting
from nasseg.planning.job import Candidate
from nasseg.planning.samplers.base import Region
from nasseg.space import Choice, Space

POPULATION, TOURNAMENT = 16, 4


class Evolution:
    """A sampler that mutates the best of a few recent trials (Real et al., arXiv 1802.01548)."""

    def __init__(self, region: Region) -> None:
        self.space = region.space

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Draw uniformly until there is a population, then a neighbour; the only memory is `history`."""
        scored = [trial for trial in history if trial.values and trial.candidate.feasible]
        if len(scored) < POPULATION:
            drawn: Choice = self.space.sample(rng)
            return drawn
        parent = max(rng.sample(scored[-POPULATION:], TOURNAMENT), key=lambda trial: (trial.level, trial.values))
        child: Choice = rng.choice(list(self.space.neighbours(parent.choice)))
        return child


if __name__ == "__main__":
    space: Space[Any] = TwoRates()

    def params(choice: Choice) -> float:
        """Count the parameters of a network."""
        return float(space.architecture(choice, 19).describe((64, 64)).params)

    sampler = Evolution(Region.of(Fitting(space, constraints=lambda _: {}), params))
    rng, history = Random(0), list[Trial]()
    for _ in range(3 * POPULATION):
        choice = sampler.propose(history, rng)
        candidate = Candidate(key=space.architecture(choice, 19).key, choice=choice.model_dump(mode="json"))
        history.append(Trial(candidate, choice, level=1, values=(-params(choice),), final=True))
    for name, part in {"first": history[:POPULATION], "last": history[-POPULATION:]}.items():
        mean = -sum(trial.values[0] for trial in part if trial.values) / POPULATION
        print(f"{name} {POPULATION}: {mean / 1e6:.2f} M parameters on average")
