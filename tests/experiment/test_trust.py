import math

import numpy as np
import pytest

from nasseg.experiment.trust import Gain, measure_gain, measure_trust, pooled_deviation
from nasseg.planning.candidates import FIRST_FRESH_SEED, Trial
from nasseg.planning.job import Candidate, Outcome
from tests.planning.made_up import Cell

CHOICE = Cell(branches=(0,))


def test_pooled_deviation_is_the_root_of_the_mean_variance() -> None:
    groups = [[1.0, 3.0, 2.0], [5.0, 5.5, 6.0], [9.0]]
    expected = math.sqrt((np.var(groups[0], ddof=1) + np.var(groups[1], ddof=1)) / 2)
    assert pooled_deviation(groups) == pytest.approx(expected)
    assert pooled_deviation([[1.0], []]) is None


def test_each_rung_is_compared_over_the_candidates_that_reached_both() -> None:
    def outcome(key: str, step: int, miou: float) -> Outcome:
        return Outcome(key=key, status="ok", step=step, miou=miou)

    trials = []
    for i in range(5):
        proxy = {10: outcome(str(i), 10, i / 10)}
        if i:
            proxy[30] = outcome(str(i), 30, 0.5 - i / 10)
        full = {seed: outcome(str(i), 99, i / 10 + seed / 100) for seed in range(2)} if i > 1 else {}
        trials.append(Trial(Candidate(key=str(i), choice={}), CHOICE, proxy=proxy, full=full))
    trials.append(
        Trial(Candidate(key="x", choice={}), CHOICE, proxy={10: Outcome(key="x", status="nonfinite", step=3)})
    )
    trust = measure_trust(trials, (10, 30))
    found = {(a.lower, a.upper): (a.points, a.spearman) for a in trust.agreements}
    assert found == {
        ("step 10", "step 30"): (4, pytest.approx(-1)),
        ("step 10", "end to end"): (3, pytest.approx(1)),
        ("step 30", "end to end"): (3, pytest.approx(-1)),
    }
    assert trust.seed_deviation == pytest.approx(math.sqrt(0.00005))


def trial(key: str, deciding: list[float], fresh: list[float], label: str | None = None) -> Trial:
    full = {
        start + seed: Outcome(key=key, status="ok", step=9, miou=miou)
        for start, mious in ((0, deciding), (FIRST_FRESH_SEED, fresh))
        for seed, miou in enumerate(mious)
    }
    return Trial(Candidate(key=key, choice={}, label=label), CHOICE, full=full)


def test_a_gain_is_of_fresh_seeds_with_the_interval_of_student() -> None:
    found = trial("found", [0.8, 0.82], [0.6, 0.64])
    baseline = trial("baseline", [0.5, 0.54], [0.5], label="aspp")
    gain = measure_gain(found, baseline, [found, baseline])
    assert gain is not None
    assert (gain.found, gain.baseline, gain.seeds) == ("found", "aspp", (2, 1))
    assert gain.miou == pytest.approx(0.12)
    # Three pairs, whose halves differ by 0.01, 0.02 and 0.02; the tables' t for three degrees of freedom is 3.182.
    deviation = math.sqrt(2 * (0.01**2 + 0.02**2 + 0.02**2) / 3)
    half = 3.182 * deviation * math.sqrt(1 / 2 + 1)
    assert gain.interval == pytest.approx((0.12 - half, 0.12 + half), abs=1e-4)
    assert gain.verdict == "better"


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.001, 0.2), "better"), ((-0.1, 0.2), "a tie"), ((-0.2, -0.001), "worse"), (None, None)]
)
def test_what_may_be_luck_is_called_a_tie(interval: tuple[float, float] | None, verdict: str | None) -> None:
    gain = Gain(found="a", baseline="b", miou=0.0, seeds=(1, 1), interval=interval)
    assert gain.verdict == verdict


def test_a_gain_needs_fresh_seeds_and_its_interval_two_of_one_network() -> None:
    found, baseline = trial("found", [0.8], [0.6]), trial("baseline", [0.5], [0.5])
    alone = measure_gain(found, baseline, [found, baseline])
    assert alone is not None
    assert (alone.miou, alone.interval) == (pytest.approx(0.1), None)
    assert measure_gain(found, trial("other", [0.5], []), [found]) is None
