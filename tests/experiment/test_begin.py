import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import nasseg
import nasseg.jobs.speed
from nasseg.cost.calibration import PredictionError
from nasseg.cost.latency_table import LatencyTable
from nasseg.data.checking import survey
from nasseg.experiment.begin import check_costs, check_weights, plan_search
from nasseg.experiment.machine_table import Silent
from nasseg.graph import Architecture, PublishedBackbone
from nasseg.jobs.context import Problem
from nasseg.planning.budget import Budget
from nasseg.planning.machine import PROCESS_BYTES
from nasseg.planning.options import SearchOptions
from tests.jobs.tiny import DATA, SPACE, Head, TinySpace, latency_table, tiny_config

ASKED: dict[str, Any] = {"budget": "2min", "space": SPACE, "data": DATA, "device": "cpu", "concurrency": 1}


def test_a_plan_is_made_from_the_measured_speed() -> None:
    plan = plan_search(Problem(SearchOptions(**ASKED, finalists=1))).plan
    assert (plan.finalists, plan.concurrency, plan.candidates) == (1, 1, None)


def test_there_are_as_many_jobs_at_once_as_memory_suffices_for(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = {"bytes": 1.6 * PROCESS_BYTES}
    monkeypatch.setattr("nasseg.experiment.begin.free_memory_bytes", lambda device: memory["bytes"])
    monkeypatch.setattr("nasseg.experiment.begin.cores", lambda: 3)
    asked = {**ASKED, "concurrency": None}
    assert plan_search(Problem(SearchOptions(**asked))).plan.concurrency == 1
    with pytest.raises(ValueError, match=r"2 jobs at once on images at \S+ of .* or a lower --concurrency"):
        plan_search(Problem(SearchOptions(**{**asked, "concurrency": 2})))
    memory["bytes"] = 2.6 * PROCESS_BYTES
    plan = plan_search(Problem(SearchOptions(**asked))).plan
    assert (plan.concurrency, plan.threads) == (2, 1)
    memory["bytes"] = 0.5 * PROCESS_BYTES
    with pytest.raises(ValueError, match=r"1 job on images at 0\.25 of their size takes"):
        plan_search(Problem(SearchOptions(**asked)))


def test_a_budget_for_the_references_alone_is_refused_with_one_that_does() -> None:
    asked = {**ASKED, "full_steps": 2, "finalists": 1, "seeds": 1}
    with pytest.raises(ValueError, match=r"budget 30s suffices for the 2 handcrafted references alone; give") as error:
        plan_search(Problem(SearchOptions(**{**asked, "budget": "30s", "rungs": (2000, 20000)})))
    enough = re.search(r"--budget (\S+) or more", str(error.value))
    assert enough is not None
    assert Budget.parse(enough[1]).amount > 30


def test_a_hopeless_budget_is_refused_once_the_smallest_images_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nasseg.experiment.begin.measure_contention", lambda *_: pytest.fail("nothing more is measured")
    )
    crops, rehearsal = [], nasseg.jobs.speed.rehearsal

    def noted(architecture: Architecture, inputs: Any, labels: tuple[int, int], device: torch.device) -> Any:
        crops.append(labels)
        return rehearsal(architecture, inputs, labels, device)

    monkeypatch.setattr("nasseg.jobs.speed.rehearsal", noted)
    asked = {**ASKED, "budget": "30s", "rungs": (2000, 20000), "full_steps": 2, "concurrency": 2}
    with pytest.raises(ValueError, match="references alone"):
        plan_search(Problem(SearchOptions(**asked)))
    assert crops == [(32, 32), (8, 8)]  # networks, and heads on features, at the smallest scale
    crops.clear()
    with pytest.raises(ValueError, match="references alone"):
        plan_search(Problem(SearchOptions(**{**asked, "space": "encoder_decoder", "rungs": (2000,)})))
    assert crops == [(32, 32)] * 2  # two of four networks, at the smallest scale


def test_all_runs_of_a_search_weigh_the_classes_as_asked() -> None:
    numbers = tuple(float(number) for number in range(1, 14))
    for given, expected in ((",".join(map(str, numbers)), numbers), ("balanced", None), (None, None)):
        problem = Problem(SearchOptions(**{**ASKED, "class_weights": given}))
        weights = survey(problem.train).balanced_weights() if given == "balanced" else expected
        plan = plan_search(problem).plan
        assert plan.proxy_recipe.class_weights == plan.full_recipe.class_weights == weights
    for wrong, message in (("1,2", "are 2, but the data has 13 classes"), ("rare", "must be balanced or")):
        with pytest.raises(ValueError, match=message):
            plan_search(Problem(SearchOptions(**{**ASKED, "class_weights": wrong})))
    with pytest.raises(ValueError, match="class_weights are for strategy trials"):
        SearchOptions.parse({"strategy": "gradient", "class_weights": "balanced"})


class TwoBackbones(TinySpace):
    """Its references have other backbones than some of its points."""

    shared: bool = False

    def architecture(self, choice: Head, classes: int) -> Architecture:
        name = "small" if choice.kernel < 3 else "large"
        backbone = PublishedBackbone(name=name, channels={"backbone.body.0.weight": 12 if name == "small" else 13})
        return super().architecture(choice, classes).replace(backbone=backbone)

    def references(self) -> dict[str, Head]:
        return {"plain": Head(kernel=1, channels=4)}


def test_every_backbone_of_the_space_needs_weights_before_the_search_starts(tmp_path: Path) -> None:
    space, path = TwoBackbones(), tmp_path / "small.safetensors"
    network = space.architecture(Head(kernel=1, channels=1), 3).network()
    save_file({n: t + 0 for n, t in network.state_dict().items() if n.startswith("backbone.stem")}, path)
    problem = Problem(SearchOptions(**ASKED, weights=str(path)))
    problem.space = space
    with pytest.raises(ValueError, match=r"small\.safetensors has no backbone\.body\.0\.weight, but small, "):
        check_weights(problem)
    weights = {name: tensor + 0 for name, tensor in network.state_dict().items() if name.startswith("backbone")}
    save_file(weights | {"backbone.other.weight": torch.ones(1)}, path)
    problem = Problem(SearchOptions(**ASKED, weights=str(path)))
    problem.space = space
    with pytest.raises(ValueError, match=r"with 12 output channels, but large, .* is published with 13"):
        check_weights(problem)
    problem.space = TinySpace()
    check_weights(problem)


def test_a_folder_in_use_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="exists already"):
        nasseg.search(tmp_path, space="nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "200potatoes"}, "200potatoes"),
        ({"budget": "1gpu-h", "device": "cpu"}, "needs a GPU"),
        ({"space": "nowhere"}, "unknown search space 'nowhere'"),
        ({"sampler": "oracle"}, "unknown sampler 'oracle'"),
        ({"data": "folder:/nowhere"}, "/nowhere"),
        ({"val_split": "vla"}, "vla"),
        ({"weights": "/nowhere.safetensors"}, "/nowhere.safetensors"),
        ({"rung": (1, 2)}, "unknown option 'rung'; known: space, "),
        ({"plan": None}, "unknown option 'plan'"),
        ({"finalists": "3"}, "finalists is '3', but must be a valid integer"),
        ({"rungs": (6, 2)}, "rungs are (6, 2), but must be rising numbers of steps"),
        ({"full_steps": 0}, "full_steps is 0"),
        ({"cost_weight": 1}, "cost_weight is 1"),
        ({"gpus_per_trial": 0.5, "device": "cpu"}, "gpus_per_trial is 0.5"),
        (
            {"strategy": "gradient", "space": "dpc"},
            "'dpc' cannot be searched by gradient; those that can: auto_deeplab",
        ),
        ({"relax_steps": 5}, "relax_steps is for strategy gradient"),
        ({"strategy": "magic"}, "strategy is 'magic'"),
        ({"objective": "beauty"}, "objective is 'beauty'"),
        ({"max_params": "few"}, "max_params is 'few', but must be a number above 0"),
        ({"max_params": "1"}, "max_params is 0.000 M parameters, but the smallest network found in the space has"),
        ({"latency": "/nowhere.json"}, "/nowhere.json: no such file; give a table of nasseg profile"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    asked = {"budget": "2trials", "space": SPACE, "data": DATA, "device": "cpu", **options}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        nasseg.search(tmp_path / "run", **asked)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_plan_by_gradient_has_the_dials_that_are_given() -> None:
    asked = SearchOptions(**ASKED, strategy="gradient", relax_steps=7, partial_channels=2)
    plan = plan_search(Problem(asked)).plan
    assert plan.relax_recipe is not None
    assert (plan.relaxations, plan.relax_steps, plan.relax_recipe.steps) == (1, 7, 7)
    assert (plan.relax_recipe.cost_weight, plan.relax_recipe.options.partial_channels) == (-0.07, 2)


# --- latency tables ---


@pytest.fixture
def latency(tmp_path: Path) -> Path:
    """A table of the tiny space with three classes."""
    path = tmp_path / "table.json"
    latency_table((64, 96), classes=3).save(path)
    return path


def check(latency: Path | None, size: tuple[int, int] = (64, 96), classes: int = 3, **limits: str) -> None:
    """Check the costs of a search on images of `size` with so many classes."""
    config = tiny_config().model_copy(update={"latency": None if latency is None else str(latency), **limits})
    problem = Problem(config)
    problem.size, problem.classes = size, classes
    check_costs(problem)


def test_a_table_that_fits_is_taken(latency: Path) -> None:
    check(latency)
    check(latency, target_latency="1s")


def test_a_poor_table_is_warned_of(latency: Path) -> None:
    said = []

    class Hearing(Silent):
        def say(self, message: str) -> None:
            said.append(message)

    def check() -> None:
        problem = Problem(tiny_config().model_copy(update={"latency": str(latency)}))
        problem.size, problem.classes = (64, 96), 3
        check_costs(problem, Hearing())

    check()
    assert said == []
    poor = {"error": PredictionError(networks=10, spearman=-0.68, mape_percent=50)}
    LatencyTable.load(latency).model_copy(update=poor).save(latency)
    check()
    assert said == [
        f"warning: the latency table {latency} is off by 50.0 % on average on networks that it was not fitted on, and "
        "ranks them with a Spearman correlation of -0.680 (10 networks); a table that is off by over 15 %, or ranks "
        "below 0.7, hardly tells which is faster: remove it, end other programs and measure again"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (32, 48)}, "table is for images of 64x96, but 32x48 is needed.* --size 32x48 --classes 3"),
        ({"classes": 4}, r"lacks \d+ operators: .* --size 64x96 --classes 4"),
        ({"target_latency": "1us"}, r"target_latency is 0.00 ms, but the fastest network found in the space has \d"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(latency: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(latency, **options)


def test_the_fastest_of_the_space_is_told(latency: Path) -> None:
    space, loaded = TinySpace(), LatencyTable.load(latency)
    every = [Head(kernel=kernel, channels=channels) for kernel in (1, 3, 5) for channels in range(1, 17)]
    fastest = min(loaded.latency_ms(space.architecture(choice, 3)) for choice in every)
    with pytest.raises(ValueError, match=f"has {fastest:.2f} ms"):
        check(latency, target_latency=f"{fastest * 0.99}ms")
    check(latency, target_latency=f"{fastest * 1.01}ms")


def test_a_limit_that_nothing_can_be_scaled_to_is_refused_and_the_plan_is_for_scaled_networks() -> None:
    scaled = {**ASKED, "space": "tests.jobs.tiny:ScaledTinySpace", "image_scale": 1.0}
    most = Problem(SearchOptions(**scaled)).pricing.costs(_network(5, 16)).params
    assert most is not None
    with pytest.raises(ValueError, match=r"limits \(at most 0.012 M parameters\); the nearest takes up 50%"):
        check_costs(Problem(SearchOptions(**scaled, max_params=f"{2 * most}")))
    problem = Problem(SearchOptions(**scaled, max_params=f"{most}"))
    check_costs(problem)
    assert list(problem.references) == ["plain-below", "wide"]


@pytest.mark.parametrize(
    ("options", "aim", "sampler"),
    [
        ({}, "pareto", "nsga2"),
        ({"objective": "score"}, "score", "tpe"),
        ({"space": SPACE}, "score", "tpe"),
        ({"max_params": "3K"}, "score", "gp"),
        ({"max_params": "3K", "space": SPACE}, "score", "tpe"),
        ({"max_params": "3K", "strategy": "gradient"}, "score", "neighbourhood"),
        ({"max_params": "3K", "objective": "pareto"}, "pareto", "nsga2"),
        ({"strategy": "gradient", "objective": "pareto"}, "pareto", "nsga2"),
        ({"max_params": "3K", "sampler": "random"}, "score", "random"),
    ],
)
def test_aim_and_sampler_follow_from_what_is_searched_unless_given(
    options: dict[str, Any], aim: str, sampler: str
) -> None:
    problem = Problem(SearchOptions(**{**ASKED, "space": "tests.jobs.tiny:ScaledTinySpace", **options}))
    assert (problem.aim, problem.sampler) == (aim, sampler)


def _network(kernel: int, channels: int) -> Architecture:
    return TinySpace().architecture(Head(kernel=kernel, channels=channels), 13)


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            folder = tmp_path / "data" / kind / split
            folder.mkdir(parents=True)
            Image.new(mode, (48, 32)).save(folder / "a.png")
    (tmp_path / "data" / "dataset.json").write_text('{"classes": ["a"], "palette": [[0, 0, 0]], "ignore_index": 255}')
    monkeypatch.chdir(tmp_path)
    given = SearchOptions.parse({"budget": "1trials", "data": "folder:data", "weights": "w/a.pt, imagenet"})
    found = given.from_anywhere()
    assert found.data == f"folder:{tmp_path / 'data'}"
    assert found.weights == f"{tmp_path / 'w' / 'a.pt'},imagenet"
    monkeypatch.chdir("/")
    assert found.from_anywhere() == found
    assert "data" not in SearchOptions.parse({"budget": "1trials"}).from_anywhere().model_fields_set
