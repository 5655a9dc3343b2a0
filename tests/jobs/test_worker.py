import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nasseg.data import open_dataset
from nasseg.data.augment import normalise
from nasseg.data.cache import FeatureCache
from nasseg.data.resident import ResidentFeatures
from nasseg.graph import Architecture, Node
from nasseg.jobs.device_share import DeviceShare
from nasseg.jobs.runners.dispatch import run_guarded
from nasseg.jobs.worker import Worker
from nasseg.ops import Conv
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Candidate, Job, Outcome, Task
from nasseg.run_folder import LATENCY_TABLE_FILE, prepared_model, trained_model
from nasseg.train.checkpoint import load_checkpoint
from nasseg.train.fit import seeded_network
from nasseg.train.model import load_model
from nasseg.train.relaxation.trainer import RelaxationSnapshot, RelaxationTrainer
from tests.jobs.tiny import DATA, KERNELS, SPACE, Head, TinySpace, gradient_config, latency_table, tiny_config

CLASSES = len(open_dataset(DATA).classes)


def candidate(choice: Head) -> Candidate:
    key = TinySpace().architecture(choice, CLASSES).key
    return Candidate(key=key, choice=choice.model_dump(mode="json"))


PLAIN, WIDE = (candidate(choice) for choice in TinySpace().references().values())
OTHER = candidate(Head(kernel=3, channels=6))


def job(task: Task, *candidates: Candidate, start: int = 0, stop: int = 4, seed: int = 0) -> Job:
    return Job(number=1, task=task, candidates=candidates, seed=seed, start_step=start, stop_step=stop)


def proxy(worker: Worker, *candidates: Candidate, start: int = 0, stop: int) -> tuple[Outcome, ...]:
    return worker.run(job("proxy", *candidates, start=start, stop=stop)).outcomes


def weights(folder: Path, key: str, step: int) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(folder / "checkpoints" / f"{key}-proxy{step}.pt")["average"]
    return state


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the trained reference and its features."""
    folder = tmp_path_factory.mktemp("prepared")
    worker = Worker.open(tiny_config(), folder)
    result = worker.run(job("prepare", PLAIN))
    assert (result.outcomes[0].status, result.storing_seconds) == ("ok", 0)
    assert not (folder / "features").exists(), "whoever needs features computes them"
    assert worker.proxy.features is not None
    assert worker.proxy.features.store()
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(prepared, tmp_path / "run"))


def test_a_shorter_run_gives_the_features_and_is_none_of_the_finals(tmp_path: Path) -> None:
    worker = Worker.open(tiny_config(prepare_steps=2), tmp_path)
    (outcome,) = worker.run(job("prepare", PLAIN, stop=2)).outcomes
    assert (outcome.status, outcome.step) == ("ok", 2)
    assert not trained_model(tmp_path, PLAIN.key, 0).exists()
    weights = worker.proxy.features.prefix[0].state_dict() if worker.proxy.features else {}
    trained = load_model(prepared_model(tmp_path, PLAIN.key))[0].state_dict()
    assert weights
    assert all(torch.equal(tensor, trained[name]) for name, tensor in weights.items())
    (full,) = worker.run(job("full", PLAIN)).outcomes
    assert full.step == 4
    assert trained_model(tmp_path, PLAIN.key, 0).exists()
    again = load_model(prepared_model(tmp_path, PLAIN.key))[0].state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in again.items()), "the features stay as they are"


def test_features_are_those_of_the_trained_reference(folder: Path) -> None:
    worker = Worker.open(tiny_config(), folder)
    network, provenance = load_model(trained_model(worker.context.folder, PLAIN.key, 0))
    assert network.architecture.choice == PLAIN.choice
    assert (provenance.data.spec, provenance.data.size, provenance.budget) == (
        worker.context.problem.dataset.spec,
        (64, 96),
        "5trials",
    )
    features = worker.proxy.features
    assert features is not None
    val = worker.context.problem.dataset.split("val")
    prefix = network.architecture.cut("backbone")[0].network().eval()
    prefix.load_state_dict({name: network.state_dict()[name] for name in prefix.state_dict()})
    with torch.inference_mode():
        expected = prefix.outputs({"image": normalise(torch.stack([val[i].image for i in range(4)]))})
    (batch,) = features.cache("val").sequential(8)
    for name, stored in expected.items():
        torch.testing.assert_close(batch.inputs[name], stored, rtol=2e-2, atol=2e-2)
    assert torch.equal(batch.masks, torch.stack([val[i].mask for i in range(4)])[:, 2::4, 2::4].long())
    assert (features.cache("train").samples, features.cache("train").views) == (8, 2)


def test_features_are_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.jobs.features.place", None)
    assert proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)[0].status == "ok"


def test_a_run_that_needs_features_stores_them_and_says_what_that_took(folder: Path) -> None:
    known = proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)
    shutil.rmtree(folder / "features")
    worker = Worker.open(tiny_config(), folder)
    first, second = (worker.run(job("proxy", OTHER, stop=2)) for _ in range(2))
    assert first.outcomes == second.outcomes == known
    assert 0 < first.storing_seconds < first.seconds
    assert second.storing_seconds < min(first.storing_seconds, 0.01)


def test_images_that_change_while_features_are_stored_end_the_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / "features")
    worker = Worker.open(tiny_config(), folder)

    def changed() -> None:
        raise ValueError("has changed")

    monkeypatch.setattr(worker.context, "require_unchanged", changed)
    with pytest.raises(ValueError, match="has changed"):
        worker.run(job("proxy", OTHER, stop=2))


def test_features_stay_on_the_device_as_far_as_the_plan_leaves_room_and_give_the_same_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features of both splits, of one, or of none."""
    kept: list[ResidentFeatures] = []
    made = ResidentFeatures.__init__

    def noted(self: ResidentFeatures, cache: FeatureCache, device: torch.device) -> None:
        kept.append(self)
        made(self, cache, device)

    monkeypatch.setattr(ResidentFeatures, "__init__", noted)
    worker = Worker.open(tiny_config(), folder)
    known = proxy(worker, OTHER, WIDE, stop=2)
    assert not kept
    assert worker.proxy.features is not None
    sizes = [worker.proxy.features.cache("train").nbytes, worker.proxy.features.cache("val").nbytes]
    for room, expected in ((sum(sizes), 2), (sum(sizes) - 1, 1), (min(sizes) - 1, 0)):
        kept.clear()
        assert proxy(Worker.open(tiny_config(resident_bytes=room), folder), OTHER, WIDE, stop=2) == known
        assert len(kept) == expected


def test_a_device_that_is_given_several_steps_at_once_gives_the_same_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = proxy(Worker.open(tiny_config(), folder), OTHER, WIDE, stop=6)
    for module in ("nasseg.jobs.proxy", "nasseg.train.trainer"):
        monkeypatch.setattr(f"{module}.steps_ahead", lambda device: 4)
    assert proxy(Worker.open(tiny_config(), folder), OTHER, WIDE, stop=6) == known


@pytest.mark.parametrize("deeper", [False, True], ids=["another stride", "another backbone with the same channels"])
def test_a_network_whose_nodes_are_not_the_stored_ones_fails_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, deeper: bool
) -> None:
    """Cut by the name of its stage alone, it was trained on features that are not its own."""
    (alone,) = proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)
    built = TinySpace.architecture

    def other(self: TinySpace, choice: Head, classes: int) -> Architecture:
        architecture = built(self, choice, classes)
        if choice.kernel != 5:
            return architecture
        body = architecture["backbone.body"]
        op = Conv(out_channels=12, stride=4, kernel=5) if deeper else Conv(out_channels=12, stride=8)
        nodes = (
            node if node != body else Node(name=body.name, op=op, inputs=body.inputs) for node in architecture.nodes
        )
        return architecture.replace(nodes=tuple(nodes))

    monkeypatch.setattr(TinySpace, "architecture", other)
    bad, good = proxy(Worker.open(tiny_config(), folder), candidate(Head(kernel=5, channels=16)), OTHER, stop=2)
    assert (bad.status, bad.miou, good) == ("unfit", None, alone)
    assert bad.message == "tiny cannot follow tiny up to backbone: node 'backbone.body' is another one there"


class Memory:
    """A device's memory that suffices for `room` candidates at once and, beside other jobs, for none of `large`."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch, *, room: int, large: str = "") -> None:
        self.room, self.large, self.is_alone, self.runs = room, large, False, list[int]()
        self._train = worker.proxy.train
        monkeypatch.setattr(worker.proxy, "train", self.train)
        monkeypatch.setattr(DeviceShare, "alone", lambda share: self.alone())

    def train(self, job: Job) -> tuple[Outcome, ...]:
        keys = [candidate.key for candidate in job.candidates]
        self.runs.append(len(keys))
        if len(keys) > self.room or (self.large in keys and not self.is_alone):
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return self._train(job)

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.is_alone = True
        yield
        self.is_alone = False


def test_candidates_that_do_not_fit_into_memory_together_are_trained_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = proxy(Worker.open(tiny_config(), folder), WIDE, OTHER, stop=2)
    worker = Worker.open(tiny_config(), folder)
    memory = Memory(worker, monkeypatch, room=1)
    assert proxy(worker, WIDE, OTHER, stop=2) == expected
    assert memory.runs == [2, 1, 1]


def test_one_that_does_not_fit_beside_other_jobs_is_trained_without_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)
    worker = Worker.open(tiny_config(), folder)
    memory = Memory(worker, monkeypatch, room=1, large=OTHER.key)
    assert proxy(worker, OTHER, stop=2) == expected
    assert memory.runs == [1, 1]


def test_one_that_does_not_fit_at_all_leaves_the_search_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker.open(tiny_config(), folder)
    Memory(worker, monkeypatch, room=0)
    result = worker.run(job("proxy", OTHER, stop=2))
    (outcome,) = result.outcomes
    assert (outcome.status, result.is_failure) == ("unfit", False)
    assert outcome.message == "cpu lacks memory for it, even without other jobs: tried to allocate 9 GiB"


def test_a_network_trained_end_to_end_is_kept_with_its_score(folder: Path) -> None:
    worker = Worker.open(tiny_config(), folder)
    (outcome,) = worker.run(job("full", OTHER, seed=1)).outcomes
    network, provenance = load_model(trained_model(worker.context.folder, OTHER.key, 1))
    assert (outcome.status, outcome.step, outcome.key) == ("ok", 4, OTHER.key)
    assert provenance.miou == {"search": outcome.miou}
    cost = network.architecture.describe((64, 96))
    assert (outcome.madds, outcome.params) == (cost.madds, cost.params)
    assert not list(folder.rglob("*-full1.pt"))


def test_seeds_change_trainings_and_equal_seeds_do_not(folder: Path) -> None:
    worker = Worker.open(tiny_config(), folder)
    files = []
    for seed in (1, 2, 1):
        worker.run(job("full", OTHER, seed=seed))
        files.append(load_model(trained_model(worker.context.folder, OTHER.key, seed))[0].state_dict())
    first, other, again = files
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.logits.weight"], other["head.logits.weight"])


def test_a_promotion_goes_on_as_if_there_had_been_no_break(folder: Path) -> None:
    three_rungs = tiny_config(rungs=(2, 4, 6))
    worker = Worker.open(three_rungs, folder)
    (unbroken,) = proxy(worker, OTHER, stop=4)
    expected = weights(folder, OTHER.key, 4)
    proxy(Worker.open(three_rungs, folder), OTHER, stop=2)
    (promoted,) = proxy(Worker.open(three_rungs, folder), OTHER, start=2, stop=4)
    found = weights(folder, OTHER.key, 4)
    assert promoted == unbroken
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert proxy(worker, OTHER, stop=6) == proxy(worker, OTHER, start=4, stop=6)


def test_the_top_rung_leaves_no_checkpoint(folder: Path) -> None:
    proxy(Worker.open(tiny_config(), folder), OTHER, stop=6)
    assert not list((folder / "checkpoints").glob("*-proxy6.pt"))


def test_a_job_whose_result_was_lost_gives_the_same_again(folder: Path) -> None:
    proxy(Worker.open(tiny_config(rungs=(2, 4, 6)), folder), OTHER, stop=2)
    first = proxy(Worker.open(tiny_config(rungs=(2, 4, 6)), folder), OTHER, start=2, stop=4)
    assert (folder / "checkpoints" / f"{OTHER.key}-proxy4.pt").exists()
    assert proxy(Worker.open(tiny_config(rungs=(2, 4, 6)), folder), OTHER, start=2, stop=4) == first


def test_candidates_trained_side_by_side_do_not_touch_each_other(folder: Path) -> None:
    worker = Worker.open(tiny_config(), folder)
    together = proxy(worker, PLAIN, OTHER, WIDE, stop=2)
    assert together == tuple(proxy(worker, one, stop=2)[0] for one in (PLAIN, OTHER, WIDE))


def test_only_what_follows_the_shared_stage_is_trained(folder: Path) -> None:
    proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)
    names = set(weights(folder, OTHER.key, 2))
    assert {name.split(".")[0] for name in names} == {"cell", "head"}


def test_a_space_without_a_shared_stage_trains_whole_networks_on_images(tmp_path: Path) -> None:
    worker = Worker.open(tiny_config(space=f"{SPACE}:shared=false"), tmp_path)
    worker.run(job("prepare", PLAIN))
    (outcome,) = proxy(worker, OTHER, stop=2)
    assert outcome.status == "ok"
    assert "backbone.stem.0.weight" in weights(tmp_path, OTHER.key, 2)
    assert not (tmp_path / "features").exists()


# --- by gradient -----------------------------------------------------------------------------------------------------


def snapshot(folder: Path, seed: int) -> RelaxationSnapshot:
    return RelaxationSnapshot.model_validate_json((folder / "relaxation" / f"seed{seed}.json").read_text())


def test_a_relaxation_is_trained_and_decoded(tmp_path: Path) -> None:
    result = Worker.open(gradient_config(), tmp_path).run(job("relax", seed=3))
    (found,) = result.found
    assert Head.model_validate(found).channels == 16
    shown = snapshot(tmp_path, 3)
    assert (shown.seed, shown.step, shown.steps, shown.choice) == (3, 4, 4, found)
    cheapest, dearest = (12 * 16 * kernel**2 * 8 * 12 for kernel in (1, 5))
    assert cheapest < shown.expected_cost < dearest
    assert sum(edge.weight for edge in shown.graphs[0].edges) == pytest.approx(1)
    again = Worker.open(gradient_config(), tmp_path).run(job("relax", seed=3))  # as where its result was lost
    assert again.found == result.found
    assert snapshot(tmp_path, 3) == shown


def test_a_relaxation_finds_nothing_before_its_architecture_is_trained(tmp_path: Path) -> None:
    config = gradient_config()
    assert config.plan.relax_recipe is not None
    first = config.plan.relax_recipe.first_architecture_step
    worker = Worker.open(config, tmp_path)
    for start, stop, finds in [(0, first, 0), (first, first + 1, 1)]:
        result = worker.run(job("relax", start=start, stop=stop))
        assert (len(result.found), result.message) == (finds, None)


def test_a_relaxation_is_trained_against_all_of_a_table_s_latency(tmp_path: Path) -> None:
    config = gradient_config()
    worker = Worker.open(config, tmp_path)
    table = latency_table(worker.context.problem.size, worker.context.problem.classes)
    table.save(tmp_path / LATENCY_TABLE_FILE)
    Worker.open(config, tmp_path).run(job("relax"))
    conv = [table.op_ms(Conv(out_channels=16, kernel=kernel), [(12, 8, 12)]) for kernel in KERNELS]
    fixed_ms = table.calibration.fixed_ms
    assert fixed_ms == 1
    assert fixed_ms + min(conv) < snapshot(tmp_path, 0).expected_cost < fixed_ms + max(conv)


def test_a_relaxation_that_was_killed_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("unbroken", "broken")]
    for folder in folders:
        folder.mkdir()
    unbroken = Worker.open(gradient_config(), folders[0]).run(job("relax"))
    monkeypatch.setattr("nasseg.train.relaxation.trainer.SAVE_EVERY_SECONDS", -1)
    steps = 0
    update = RelaxationTrainer.update_weights

    def killed(self: RelaxationTrainer, batch: Any) -> float:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return update(self, batch)

    monkeypatch.setattr(RelaxationTrainer, "update_weights", killed)
    with pytest.raises(KeyboardInterrupt):
        Worker.open(gradient_config(), folders[1]).run(job("relax"))
    resumed = Worker.open(gradient_config(), folders[1]).run(job("relax"))
    assert steps == 5
    assert resumed.found == unbroken.found
    assert snapshot(folders[1], 0) == snapshot(folders[0], 0)


def test_a_relaxation_that_diverges_is_a_failed_job(tmp_path: Path) -> None:
    worker = Worker.open(diverging(gradient_config(), "relax_recipe", learning_rate=1e30), tmp_path)
    result = run_guarded(worker, job("relax"))
    assert result.found == ()
    assert "the relaxation's loss is not finite in step" in (result.message or "")
    assert not list((tmp_path / "checkpoints").iterdir())


# --- what diverges ---------------------------------------------------------------------------------------------------


def diverging(config: SearchConfig, part: str, **changes: Any) -> SearchConfig:
    changes = changes or {"learning_rate": 1e30, "warmup_steps": 0}
    recipe = getattr(config.plan, part).model_copy(update=changes)
    return config.model_copy(update={"plan": config.plan.model_copy(update={part: recipe})})


def test_a_training_that_diverges_is_an_outcome(folder: Path) -> None:
    worker = Worker.open(diverging(diverging(tiny_config(), "proxy_recipe"), "full_recipe"), folder)
    for outcome in (*proxy(worker, OTHER, WIDE, stop=6), *worker.run(job("full", OTHER)).outcomes):
        assert (outcome.status, outcome.miou) == ("nonfinite", None)
        assert 0 < outcome.step < 6
        assert outcome.madds is not None
    assert not trained_model(worker.context.folder, OTHER.key, 0).exists()


def test_one_that_diverges_leaves_the_others_of_its_job_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone,) = proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)

    def spoilt(architecture, seed):  # type: ignore[no-untyped-def]
        network = seeded_network(architecture, seed)
        if network.get_parameter("cell.conv.0.weight").shape[-1] == 5:
            network.get_parameter("head.logits.weight").data.fill_(float("inf"))
        return network

    monkeypatch.setattr("nasseg.jobs.proxy.seeded_network", spoilt)
    bad, good = proxy(Worker.open(tiny_config(), folder), WIDE, OTHER, stop=2)
    assert (bad.status, bad.step) == ("nonfinite", 0)
    assert good == alone


def test_features_that_the_disk_has_no_room_for_are_not_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "features")
    monkeypatch.setattr("nasseg.run_folder.free_disk_bytes", lambda folder: 1000)
    with pytest.raises(OSError, match="No space left on device for") as error:
        proxy(Worker.open(tiny_config(), folder), OTHER, stop=2)
    assert error.value.filename == str(folder / "features")
    assert not list(folder.glob("features/*/*.bin"))
