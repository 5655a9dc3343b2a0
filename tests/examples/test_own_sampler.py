from random import Random

from examples.own_sampler import POPULATION, TOURNAMENT, Evolution
from nasseg.planning.samplers import find_sampler
from nasseg.testing import SamplerConformance
from nasseg.testing.samplers import REGION, SPACE, history
from tests.examples.command import printed


class TestEvolution(SamplerConformance):
    sampler = Evolution


def test_it_runs() -> None:
    first, last = (float(line.split()[2]) for line in printed("own_sampler").splitlines())
    assert last < 0.95 * first


def test_children_are_neighbours_of_the_last_population() -> None:
    tried = history(count=3 * POPULATION)
    children = {Evolution(REGION).propose(tried, Random(seed)) for seed in range(30)}
    near = {neighbour for one in tried[-POPULATION:] for neighbour in SPACE.neighbours(one.choice)}
    assert children <= near
    assert len(children) > TOURNAMENT


def test_the_command_line_takes_its_name() -> None:
    assert find_sampler("aging") is Evolution
