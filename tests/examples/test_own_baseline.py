from functools import partial
from pathlib import Path

import nasseg
from examples.own_baseline import small
from nasseg.testing import BaselineCase, BaselineConformance
from tests.examples.command import printed


class TestSmall(BaselineConformance):
    case = BaselineCase(partial(small, width=8))


def test_it_runs(tmp_path: Path) -> None:
    printed("own_baseline", cwd=tmp_path)
    assert nasseg.load(tmp_path / "small.json") == nasseg.baseline("small", 13)
