from random import Random

from nasseg.planning.samplers.large_start import DRAWS, STARTS, LargeStart
from nasseg.planning.samplers.uniform import RandomSampler
from tests.planning.made_up import Cell, region_of
from tests.planning.test_samplers import SPACE, tried_choice


def params(choice: Cell) -> float:
    return float(sum(choice.branches))


REGION = region_of(SPACE, params=params)
SAMPLER = LargeStart(RandomSampler(REGION), REGION)


def test_the_first_are_the_largest_of_the_draws() -> None:
    rng = Random(3)
    draws = [REGION.draw(rng) for _ in range(DRAWS)]
    assert SAMPLER.propose([], Random(3)) == max(draws, key=params)


def test_the_other_sampler_takes_over_after_the_starts() -> None:
    """Neither references nor what violates a limit are starts."""
    started = [tried_choice(Cell(branches=(0, 0, n % 7)), 1, (0.5,), True) for n in range(STARTS)]
    beyond = tried_choice(Cell(branches=(6, 6, 6)), 0, None, True, (0.5,))
    reference = tried_choice(Cell(branches=(1, 1, 1)), 1, (0.5,), True)
    reference.candidate = reference.candidate.model_copy(update={"label": "plain"})
    other, large = SPACE.sample(Random(3)), SAMPLER.propose([], Random(3))
    assert other != large
    assert SAMPLER.propose([beyond, reference, *started[1:]], Random(3)) == large
    assert SAMPLER.propose([beyond, reference, *started], Random(3)) == other
