"""Trials and finalists of whole networks start from pretrained weights, and from nothing that was trained before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nasseg.data import open_dataset
from nasseg.graph import Builder
from nasseg.jobs.worker import Worker
from nasseg.network import Network
from nasseg.ops import Conv
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Candidate, Job, Outcome, Task
from nasseg.train.fit import seeded_network
from nasseg.train.trainer import Trainer
from nasseg.train.weights.remapping import remapped
from tests.jobs.tiny import DATA, SPACE, Head, TinySpace, tiny_config

CLASSES = len(open_dataset(DATA).classes)
NARROW, WIDE = Head(kernel=3, channels=4), Head(kernel=5, channels=16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of the tiny space's backbone with more channels, under published names."""
    g = Builder("published")
    stem = g.add("backbone.stem", Conv(out_channels=16, stride=2), g.input())
    network = seeded_network(g.build(g.add("backbone.body", Conv(out_channels=20, stride=4), stem)), 5)
    generator = torch.Generator().manual_seed(5)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    path = tmp_path / "published.safetensors"
    save_file({name.removeprefix("backbone."): tensor for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights from which trainings start."""
    found: list[dict[str, Tensor]] = []

    class Recorded(Trainer):
        def __init__(self, network: Network, *rest: Any) -> None:
            found.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
            super().__init__(network, *rest)

    monkeypatch.setattr("nasseg.jobs.proxy.Trainer", Recorded)
    monkeypatch.setattr("nasseg.train.fit.Trainer", Recorded)
    return found


def config(weights: object, **changes: Any) -> SearchConfig:
    whole = tiny_config(space=f"{SPACE}:shared=false", **changes)
    return whole.model_copy(update={"weights": None if weights is None else str(weights)})


def train(worker: Worker, choice: Head, task: Task = "proxy", start: int = 0, stop: int = 2, seed: int = 0) -> Outcome:
    key = f"{choice.kernel}-{choice.channels}"
    candidate = Candidate(key=key, choice=choice.model_dump(mode="json"))
    job = Job(number=1, task=task, candidates=(candidate,), seed=seed, start_step=start, stop_step=stop)
    return worker.run(job).outcomes[0]


def expected(choice: Head, file: Path, seed: int) -> dict[str, Tensor]:
    """The remapped weights of the backbone, the rest as drawn."""
    from safetensors.torch import load_file

    architecture = TinySpace(shared=False).architecture(choice, CLASSES)
    published = {f"backbone.{name}": tensor for name, tensor in load_file(file).items()}
    network = seeded_network(architecture, seed).state_dict()
    cut = remapped(published, architecture)
    assert cut["backbone.body.0.weight"].shape == (12, 8, 3, 3)
    return {**network, **cut}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name]), name


def test_every_trial_and_every_finalist_starts_from_the_file(
    file: Path, tmp_path: Path, starts: list[dict[str, Tensor]]
) -> None:
    worker = Worker.open(config(file), tmp_path)
    for choice, task, seed in ((WIDE, "proxy", 0), (NARROW, "proxy", 0), (WIDE, "full", 0), (NARROW, "full", 1)):
        assert train(worker, choice, task, stop=4 if task == "full" else 2, seed=seed).status == "ok"  # type: ignore[arg-type]
        assert_equal(starts[-1], expected(choice, file, seed))
    assert not (tmp_path / "weights").exists()


def test_a_trial_scores_the_same_whichever_was_trained_before(file: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "after").mkdir()
    alone, after = (Worker.open(config(file), tmp_path / name) for name in ("alone", "after"))
    first = train(alone, NARROW)
    train(after, WIDE)
    assert train(after, NARROW) == first
    without = Worker.open(config(None), tmp_path / "alone")
    assert train(without, NARROW) != first


def test_without_pretrained_weights_trials_inherit_as_before(tmp_path: Path) -> None:
    problem = Worker.open(config(None), tmp_path).context.problem
    assert (problem.inherits, problem.pretrained) == (True, None)
    shared = Worker.open(tiny_config(), tmp_path).context.problem
    assert not shared.inherits


def test_files_are_read_once(file: Path, tmp_path: Path) -> None:
    worker = Worker.open(config(file), tmp_path)
    first = train(worker, NARROW)
    file.unlink()
    assert train(worker, NARROW) == first


def test_a_promotion_without_its_checkpoint_begins_anew_and_ends_the_same(file: Path, tmp_path: Path) -> None:
    worker = Worker.open(config(file), tmp_path)
    train(worker, NARROW)
    checkpoint = tmp_path / "checkpoints" / "3-4-proxy2.pt"
    assert checkpoint.exists()
    promoted = train(worker, NARROW, start=2, stop=6)
    checkpoint.unlink()
    assert train(worker, NARROW, start=2, stop=6) == promoted
    assert promoted.step == 6
