from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from nasseg.planning.config import SearchConfig
from nasseg.planning.options import SearchOptions
from nasseg.planning.samplers import find_sampler
from tests.jobs.tiny import SPACE, tiny_config


def test_a_config_is_the_same_when_read_again(tmp_path: Path) -> None:
    for config in (tiny_config(), tiny_config("8cpu-h").model_copy(update={"weights": "imagenet", "cost_weight": 0})):
        config.save(tmp_path)
        assert SearchConfig.load(tmp_path, space=config.space) == config


def test_another_search_is_given_the_options_but_not_what_follows_from_them() -> None:
    elsewhere = {"storage": "sqlite:///study.db", "study": "one", "ray_address": "auto"}
    for config in (tiny_config(), tiny_config("30min").model_copy(update={"max_params": "3M", "weights": "imagenet"})):
        options = config.model_copy(update=elsewhere).as_options()
        assert set(options) < set(SearchOptions.model_fields) - set(elsewhere)
        asked = SearchOptions.parse(options)
        assert all(getattr(asked, name) == getattr(config, name) for name in SearchOptions.model_fields)


def test_the_file_is_readable(tmp_path: Path) -> None:
    tiny_config("30min").save(tmp_path)
    data = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (data["budget"], data["sampler"], data["plan"]["rungs"]) == (
        {"amount": 30.0, "unit": "min"},
        "random",
        [2, 6],
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("plan", "rungs"), "six", r"plan\.rungs is 'six'"),
        (("plan", "image_scale"), 2, r"plan\.image_scale is 2"),
        (("plan", "full_recipe", "batch_size"), 0, r"plan\.full_recipe\.batch_size is 0"),
        (("budget", "unit"), "potatoes", r"budget\.unit is 'potatoes'"),
        (("cost_weight",), 0.5, r"cost_weight is 0\.5"),
        (("runner",), "slurm", r"runner is 'slurm'"),
        (("colour",), "blue", "unknown option 'colour'; known: space, "),
    ],
)
def test_an_error_names_the_file_and_the_field(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    tiny_config().save(tmp_path)
    file = tmp_path / "config.yaml"
    data = yaml.safe_load(file.read_text())
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match=f"config.yaml: {message}") as caught:
        SearchConfig.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["budget: [1", "just text", "", "- a list"])
def test_what_is_no_config_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml(: | is not YAML: )") as caught:
        SearchConfig.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_one_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.yaml; give the folder of a search"):
        SearchConfig.load(tmp_path)


def test_an_interrupted_write_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_config().save(tmp_path)
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        tiny_config("7trials").save(tmp_path)
    assert SearchConfig.load(tmp_path, space=SPACE) == tiny_config()


def test_a_password_stays_in_memory(tmp_path: Path) -> None:
    url = "postgresql://me:secret@host/runs"
    config = tiny_config().model_copy(update={"storage": url})
    config.save(tmp_path)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["storage"] == "postgresql://me@host/runs"
    assert "secret" not in f"{config!r} {config.model_dump()} {config.model_dump_json()}"
    assert SearchConfig.load(tmp_path, space=SPACE, storage=url) == config


def test_a_space_that_is_not_registered_is_named_by_the_user_too(tmp_path: Path) -> None:
    tiny_config(space=f"{SPACE}:shared=false").save(tmp_path)
    with pytest.raises(ValueError, match=rf"config\.yaml: space {SPACE} is not registered, .* add --space {SPACE}$"):
        SearchConfig.load(tmp_path)
    for named in ("dpc", f"{SPACE}:shared=true"):
        with pytest.raises(
            ValueError, match=f"config.yaml: space is '{SPACE}:shared=false', but --space names '{named}"
        ):
            SearchConfig.load(tmp_path, space=named)
    assert SearchConfig.load(tmp_path, space=SPACE).space == f"{SPACE}:shared=false"


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny_config().seed = 1


def test_an_unknown_sampler_names_the_known() -> None:
    find_sampler("tpe")
    with pytest.raises(ValueError, match=r"unknown sampler 'oracle'; known: .*nsga2"):
        find_sampler("oracle")


def test_the_device_is_found() -> None:
    assert tiny_config().torch_device == torch.device("cpu")


def changed(config: SearchConfig, **asked: Any) -> SearchConfig:
    return config.changed(SearchOptions(**asked))


def test_a_resumption_takes_what_can_change_and_what_is_as_it_was() -> None:
    config = tiny_config()
    more = changed(config, budget="9trials", finalists=3, concurrency=4, runner="ray", rungs=(2, 6), seed=0)
    assert (str(more.budget), more.runner, more.plan.candidates) == ("9trials", "ray", 9)
    assert (more.plan.finalists, more.plan.concurrency, more.plan.threads) == (3, 4, config.plan.threads)
    same = {"budget", "finalists", "concurrency", "runner", "plan"}
    assert more.model_dump(exclude=same) == config.model_dump(exclude=same)
    assert changed(config, budget="5trials", finalists=1, concurrency=1, full_steps=4) == config


@pytest.mark.parametrize(
    ("budget", "asked", "message"),
    [
        ("5trials", {"budget": "2h"}, "budget 2h cannot replace 5trials; give one of trials"),
        ("2h", {"budget": "9trials"}, "budget 9trials cannot replace 2h; give one of time"),
        ("5trials", {"full_steps": 5}, "full_steps is 5, but 4 in the search; only --budget, --finalists, "),
        ("5trials", {"seed": 7}, "seed is 7, but 0 in the search; only --budget, "),
        ("5trials", {"max_params": "1M"}, "max_params is 1M, but None in the search; only --budget, "),
        ("8cpu-h", {"concurrency": 2}, "concurrency cannot change, as it decides how long the budget of 8cpu-h is"),
    ],
)
def test_a_resumption_refuses_what_cannot_change(budget: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(tiny_config(budget), **asked)


def test_finalists_can_only_become_more() -> None:
    with pytest.raises(ValueError, match="finalists are 1, but 2 in the search; give more"):
        changed(tiny_config(finalists=2), finalists=1)
