import json
import threading
from pathlib import Path

import pytest

from nasseg.cli.listing import list_
from nasseg.experiment.experiment import Experiment
from nasseg.jobs.context import Context
from tests.jobs.tiny import tiny_config, tiny_plan


@pytest.mark.parametrize(("what", "name"), [("ops", "squeeze_excite"), ("baselines", "small"), ("datasets", "squares")])
def test_what_is_installed_is_listed(what: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    list_(what, as_json=True)  # type: ignore[arg-type]
    described = {row["name"]: row["description"] for row in json.loads(capsys.readouterr().out)}
    assert len(described[name]) > 20


def test_a_search_takes_a_data_set_and_a_sampler_by_name(tmp_path: Path) -> None:
    config = tiny_config("3trials").model_copy(
        update={"data": "squares:8", "sampler": "aging", "plan": tiny_plan(candidates=3)}
    )
    config.save(tmp_path)
    search = Experiment(config, Context.open(config, tmp_path))
    search.run(threading.Event(), lambda search: None)
    assert search.results.best is not None
    assert search.architecture(search.results.best).classes == 2
    assert len(search.results.trials) == 3
