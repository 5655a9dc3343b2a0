from random import Random

from nasseg.planning.samplers.evolution import EvolutionSampler
from tests.planning.made_up import Cell
from tests.planning.test_samplers import REGION, SPACE, tried_choice

POPULATION = 4
OLD_BEST, BEST = Cell(branches=(2, 2, 2)), Cell(branches=(5, 5, 5))
POOR = [Cell(branches=(0, 0, n)) for n in range(3)]


def test_the_oldest_die_and_the_winner_of_a_tournament_of_all_is_mutated() -> None:
    tried = [tried_choice(OLD_BEST, 1, (0.9,), True), tried_choice(BEST, 1, (0.5,), True)]
    tried += [tried_choice(choice, 1, (0.1,), True) for choice in POOR]
    sampler = EvolutionSampler(REGION, population=POPULATION, tournament=POPULATION)
    children = {sampler.propose(tried, Random(seed)) for seed in range(50)}
    assert children <= set(SPACE.neighbours(BEST))
    assert len(children) > 5


def test_the_least_fit_of_all_win_no_tournament_of_two() -> None:
    tried = [tried_choice(Cell(branches=(n, n, n)), 1, (n / 10,), True) for n in range(POPULATION)]
    sampler = EvolutionSampler(REGION, population=POPULATION, tournament=2)
    children = [sampler.propose(tried, Random(seed)) for seed in range(60)]
    of = {n: sum(child in set(SPACE.neighbours(Cell(branches=(n, n, n)))) for child in children) for n in range(4)}
    assert of[0] == 0
    assert of[3] > of[2] > of[1] > 0


def test_a_higher_rung_wins_and_what_has_no_values_does_not_count() -> None:
    tried = [tried_choice(choice, 1, (0.9,), False) for choice in POOR]
    tried += [tried_choice(BEST, 2, (0.5,), False), tried_choice(OLD_BEST, 0, None, False)]
    sampler = EvolutionSampler(REGION, population=POPULATION, tournament=POPULATION)
    assert {sampler.propose(tried, Random(seed)) for seed in range(50)} <= set(SPACE.neighbours(BEST))
    uniform = [sampler.propose(tried[1:], Random(seed)) for seed in range(9)]
    assert uniform == [SPACE.sample(Random(seed)) for seed in range(9)]
