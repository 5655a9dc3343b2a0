import errno
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from nasseg import plugins, run_folder
from nasseg.graph import save
from nasseg.ops.layers import FastDropout
from nasseg.train import fit
from nasseg.train.fit import Stopped, seeded_network
from nasseg.train.metrics import Metrics
from nasseg.train.model import MODEL_FILE, load_model, save_model
from nasseg.train.retrain import CHECKPOINT_FILE, Retraining
from nasseg.train.retraining.history import History
from nasseg.train.trainer import Trainer

from .made_up import CLASSES, DATA, provenance, small_architecture

TINY_SPACE = "dpc:filters=8,branches=1"


@pytest.fixture
def small(tmp_path: Path) -> str:
    save(small_architecture(), tmp_path / "small.json")
    return str(tmp_path / "small.json")


def prepare(arch: str, folder: Path, **options: Any) -> Retraining:
    defaults: dict[str, Any] = dict.fromkeys(("train_split", "val_split", "weights"))
    defaults |= {"data": DATA, "recipe": "short", "changes": {"steps": 4, "batch_size": 2}}
    defaults |= {"device": "cpu", "seed": 0}
    return Retraining.prepare(arch, folder, **{**defaults, **options})


class Recorder:
    """A watcher that keeps the losses and the scores, and stops at a step or at a validation."""

    def __init__(self, stop_at: int | None = None, stop_validating: int | None = None) -> None:
        self._stop_at, self._stop_validating, self._step = stop_at, stop_validating, 0
        self.losses: dict[int, float] = {}
        self.scores: dict[int, float] = {}
        self.images: list[int] = []

    def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
        self.losses[trainer.step] = loss
        self._step = trainer.step
        if trainer.step == self._stop_at:
            raise Stopped

    def validating(self, images: int) -> None:
        self.images.append(images)
        if self._step == self._stop_validating:
            raise Stopped

    def score(self, step: int, metrics: Metrics, history: History) -> None:
        self.scores[step] = metrics.miou


def train(retraining: Retraining, stop_at: int | None = None) -> tuple[Metrics, Recorder]:
    recorder = Recorder(stop_at)
    return retraining.run(recorder), recorder


def test_a_training_ends_in_a_model_with_its_score(small: str, tmp_path: Path) -> None:
    metrics, seen = train(prepare(small, tmp_path / "run"))
    network, found = load_model(tmp_path / "run")
    assert list(seen.scores) == [1, 2, 3, 4]
    assert seen.images == [0] * 4  # one batch for the three images, at each validation
    assert found.miou == {"retrained, val": metrics.miou}
    assert (found.budget, found.seed, found.data.size) == ("4 steps", 0, (32, 64))
    assert network.architecture.key == small_architecture().inference().key
    assert not (tmp_path / "run" / CHECKPOINT_FILE).exists()


LONG = {"recipe": "long", "changes": {"steps": 4, "batch_size": 2, "detail_head": True, "boundary_weight": 3.0}}


@pytest.mark.parametrize("options", [{}, LONG], ids=["short", "long"])
def test_a_stopped_training_goes_on_bit_for_bit(small: str, tmp_path: Path, options: dict[str, Any]) -> None:
    train(prepare(small, tmp_path / "unbroken", **options))
    with pytest.raises(Stopped):
        train(prepare(small, tmp_path / "broken", **options), stop_at=2)
    train(Retraining.load(tmp_path / "broken"))
    one, other = (safetensors.torch.load_file(tmp_path / name / MODEL_FILE) for name in ("unbroken", "broken"))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def files(folder: Path) -> dict[str, bytes]:
    """What a retraining leaves, but for what holds the time."""
    names = ("model.safetensors", "best.safetensors", "validations.json", "architecture.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("options", [{}, LONG], ids=["short", "long"])
def test_a_training_killed_five_times_ends_bit_for_bit_like_an_unbroken_one(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    changes = {**options.get("changes", {}), "steps": 12, "batch_size": 2}
    options = {**options, "changes": changes, "validate_every": 3}
    _, unbroken = train(prepare(small, tmp_path / "unbroken", **options))
    assert list(unbroken.scores) == [3, 6, 9, 12]

    monkeypatch.setattr(fit, "SAVE_EVERY_SECONDS", -1.0)

    class Killed(BaseException):
        """The end of the process, for which nothing is saved."""

    class Mortal(Recorder):
        def __init__(self, kill_at: int, validating: bool) -> None:
            super().__init__()
            self._kill_at, self._in_validation = kill_at, validating

        def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
            super().step(trainer, loss, learning_rate)
            if trainer.step == self._kill_at and not self._in_validation:
                raise Killed

        def validating(self, images: int) -> None:
            super().validating(images)
            if self._step == self._kill_at and self._in_validation:
                raise Killed

    training, losses = prepare(small, tmp_path / "broken", **options), {}
    for kill_at, validating in ((1, False), (3, False), (5, False), (6, True), (11, False)):
        mortal = Mortal(kill_at, validating)
        with pytest.raises(Killed):
            training.run(mortal)
        losses |= mortal.losses
        training = Retraining.load(tmp_path / "broken")
    losses |= train(training)[1].losses
    assert losses == unbroken.losses
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def test_a_training_stopped_while_it_is_scored_repeats_that_score(small: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate_every": 2}
    train(prepare(small, tmp_path / "unbroken", **options))
    with pytest.raises(Stopped):
        prepare(small, tmp_path / "broken", **options).run(Recorder(stop_validating=2))
    _, after = train(Retraining.load(tmp_path / "broken"))
    assert list(after.losses) == [3, 4]
    assert list(after.scores) == [2, 4]
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def made_up_scores(monkeypatch: pytest.MonkeyPatch, *mious: float) -> None:
    scores = iter(mious)

    def scored(*arguments: Any, **options: Any) -> Metrics:
        return Metrics(miou=next(scores), class_iou=(), pixel_accuracy=0.0, confusion=())

    monkeypatch.setattr("nasseg.train.retrain.evaluate", scored)


def test_a_training_ends_early_once_its_score_no_longer_rises(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_scores(monkeypatch, 0.25, 0.5, 0.5, 0.375)
    changes = {"steps": 9, "batch_size": 2}
    training = prepare(small, tmp_path / "run", patience=2, validate_every=1, changes=changes)
    with pytest.raises(Stopped):
        training.run(Recorder(stop_at=4))
    metrics, seen = train(Retraining.load(tmp_path / "run"))
    assert (metrics.miou, list(seen.losses), list(seen.scores)) == (0.375, [], [4])
    assert load_model(tmp_path / "run")[1].budget == "4 steps"
    assert load_model(tmp_path / "run" / "best.safetensors")[1].budget == "2 steps"


def test_the_loss_has_the_divergence_from_the_teacher_by_its_weight(small: str, tmp_path: Path) -> None:
    train(prepare(small, tmp_path / "teacher", seed=1))
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        changes = {"steps": 3, "batch_size": 2, "teacher_weight": weight}
        taught = prepare(small, tmp_path / str(weight), teacher=str(tmp_path / "teacher"), changes=changes)
        assert taught.config.teacher == str(tmp_path / "teacher")
        losses[weight] = train(taught)[1].losses
    assert losses[0.0] == train(prepare(small, tmp_path / "alone", changes={"steps": 3, "batch_size": 2}))[1].losses
    divergence = losses[1.0][1] - losses[0.0][1]
    assert divergence > 0
    assert losses[3.0][1] - losses[0.0][1] == pytest.approx(3 * divergence, rel=1e-3)
    assert losses[3.0][3] != losses[0.0][3]


def test_a_teacher_must_know_the_classes(small: str, tmp_path: Path) -> None:
    train(prepare(small, tmp_path / "teacher"))
    file = tmp_path / "teacher" / MODEL_FILE
    network, known = load_model(file)
    others = known.data.model_copy(update={"classes": ("sky", *known.data.classes[1:])})
    save_model(file, network, known.model_copy(update={"data": others}))
    with pytest.raises(ValueError, match="give a teacher trained for these classes"):
        prepare(small, tmp_path / "run", teacher=str(tmp_path / "teacher"))
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in PyTorch's compiler
def test_a_compiled_training_computes_the_same(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module, compiled = torch.nn.Module.compile, list[torch.nn.Module]()

    def without_code_generation(module: torch.nn.Module) -> None:
        compiled.append(module)
        compile_module(module, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", without_code_generation)
    monkeypatch.setattr(FastDropout, "forward", torch.nn.Dropout.forward)  # which a compiled network has
    losses = []
    for wanted in (False, True):
        changes = {"steps": 3, "batch_size": 2, "compile": wanted}
        losses.append(train(prepare(small, tmp_path / str(wanted), changes=changes))[1].losses)
    assert len(compiled) == 1
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_best_and_last_model_are_kept(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_scores(monkeypatch, 0.25, 0.5, 0.5, 0.125)
    _, seen = train(prepare(small, tmp_path / "run"))
    assert seen.scores == {1: 0.25, 2: 0.5, 3: 0.5, 4: 0.125}
    (best, found), (last, ended) = load_model(tmp_path / "run" / "best.safetensors"), load_model(tmp_path / "run")
    assert (found.miou, found.budget) == ({"retrained, val": 0.5}, "2 steps")
    assert (ended.miou, ended.budget) == ({"retrained, val": 0.125}, "4 steps")
    name = "backbone.conv.0.weight"
    assert not torch.equal(best.state_dict()[name], last.state_dict()[name])


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])], ids=["tenth", "2", "5", "9"]
)
def test_validations_come_at_every_interval_and_at_the_end(
    small: str, tmp_path: Path, every: int | None, steps: list[int]
) -> None:
    training = prepare(small, tmp_path / "run", validate_every=every, changes={"steps": 5, "batch_size": 2})
    _, seen = train(training)
    assert list(seen.scores) == steps
    left = [training.config.validations_after(step) for step in range(6)]
    assert left == [sum(step < due for due in steps) for step in range(6)]


def test_the_model_of_a_training_with_a_detail_head_has_none(small: str, tmp_path: Path) -> None:
    train(prepare(small, tmp_path / "with", **LONG))
    train(prepare(small, tmp_path / "without"))
    one, other = (safetensors.torch.load_file(tmp_path / name / MODEL_FILE) for name in ("with", "without"))
    assert one.keys() == other.keys()
    assert not any("detail" in name for name in one)
    network, _ = load_model(tmp_path / "with")
    assert network.architecture.key == small_architecture().inference().key


def test_the_number_of_threads_stays_that_of_the_start(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("nasseg.train.device.choose_threads", lambda: 2)
    try:
        torch.set_num_threads(3)
        with pytest.raises(Stopped):
            train(prepare(small, tmp_path / "run"), stop_at=2)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(3)
        resumed = Retraining.load(tmp_path / "run")
        assert resumed.config.threads == 2
        with pytest.raises(Stopped):
            train(resumed, stop_at=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_is_not_given_comes_from_the_file(tmp_path: Path) -> None:
    weights = seeded_network(small_architecture(), 7).state_dict()
    safetensors.torch.save_file(dict(weights), tmp_path / "w.safetensors")
    known = provenance(train_split="val", val_split="test", weights=str(tmp_path / "w.safetensors"))
    save(known.on(small_architecture()), tmp_path / "best.json")

    own = prepare(str(tmp_path / "best.json"), tmp_path / "own", data=None)
    assert (own.config.data, own.config.train_split, own.config.val_split) == (DATA, "val", "test")
    assert own.config.weights == str(tmp_path / "w.safetensors")
    assert own.weights_report is not None
    backbone = own.network().state_dict()["backbone.conv.0.weight"]
    assert torch.equal(backbone, weights["backbone.conv.0.weight"])

    changed = prepare(str(tmp_path / "best.json"), tmp_path / "changed", data=None, train_split="train", weights="none")
    assert (changed.config.train_split, changed.config.weights) == ("train", None)

    elsewhere = prepare(str(tmp_path / "best.json"), tmp_path / "else", data="streets:size=32x32,train=2,val=2,test=2")
    assert (elsewhere.config.train_split, elsewhere.config.val_split) == ("train", "val")
    assert elsewhere.config.recipe.crop == (32, 32)


def test_another_number_of_classes_is_built_from_the_choice(tmp_path: Path) -> None:
    space = plugins.space(TINY_SPACE)
    choice = space.references()["aspp"]
    made = space.architecture(choice, 4).replace(space=TINY_SPACE, choice=choice.model_dump(mode="json"))
    save(made, tmp_path / "best.json")
    retraining = prepare(str(tmp_path / "best.json"), tmp_path / "run")
    assert retraining.architecture.classes == CLASSES
    assert retraining.architecture.key == space.architecture(choice, CLASSES).key
    assert (retraining.architecture.space, retraining.architecture.choice) == (made.space, made.choice)


def test_a_file_without_a_choice_must_have_the_classes(tmp_path: Path) -> None:
    save(small_architecture(4), tmp_path / "other.json")
    with pytest.raises(ValueError, match=r"has logits for 4 classes, but streets:.* has 13"):
        prepare(str(tmp_path / "other.json"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_name_is_built_for_the_classes(tmp_path: Path) -> None:
    assert prepare(TINY_SPACE, tmp_path / "run").architecture.classes == CLASSES


def test_crops_fit_the_images(small: str, tmp_path: Path) -> None:
    data = "streets:size=40x70,train=2,val=2,test=2"
    assert prepare(small, tmp_path / "a", data=data).config.recipe.crop == (64, 96)
    assert prepare(small, tmp_path / "b", data=data, recipe="stdc", changes={"steps": 2}).config.recipe.crop == (64, 96)
    assert prepare(small, tmp_path / "d", data=data, recipe="long").config.recipe.crop == (64, 96)
    given = prepare(small, tmp_path / "c", data=data, changes={"steps": 2, "crop": (48, 48)})
    assert given.config.recipe.crop == (48, 48)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"changes": {"learning_rate": -1.0}}, "recipe: learning_rate is -1.0, but must be greater than 0"),
        ({"recipe": "quick"}, "'quick' is unknown: use one of short"),
        ({"recipe": "paper"}, "No paper's recipe is known for 'small'"),
        ({"val_split": "dev"}, "has no split 'dev'"),
        ({"weights": "nothing.pth"}, "no such file"),
        ({"device": "abacus"}, "must be auto, cpu"),
    ],
)
def test_a_refused_training_leaves_no_folder(small: str, tmp_path: Path, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        prepare(small, tmp_path / "runs" / "one", **options)
    assert not (tmp_path / "runs").exists()


def test_a_detail_head_for_a_network_without_a_backbone_leaves_no_folder(tmp_path: Path) -> None:
    _, suffix = small_architecture().cut("backbone")
    save(suffix, tmp_path / "suffix.json")
    with pytest.raises(ValueError, match="has no stage 'backbone' for a detail head: turn detail_head off"):
        prepare(str(tmp_path / "suffix.json"), tmp_path / "run", changes={"steps": 2, "detail_head": True})
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_no_folder(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_infinite_loss_is_told(small: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is not finite at step \d+; lower --learning-rate"):
        train(prepare(small, tmp_path / "run", changes={"steps": 20, "batch_size": 2, "learning_rate": 1e30}))


def test_only_the_folder_of_an_unfinished_training_is_continued(small: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.yaml; give the folder of a retraining"):
        Retraining.load(tmp_path)
    run = tmp_path / "run"
    train(prepare(small, run))
    with pytest.raises(ValueError, match="is already finished"):
        Retraining.load(run)
    (run / MODEL_FILE).unlink()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed": "x"}))
    with pytest.raises(ValueError, match=r"config\.yaml: seed is 'x', but must be a valid integer"):
        Retraining.load(run)
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml is not YAML"):
        Retraining.load(run)


def test_a_training_goes_on_from_another_folder(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = seeded_network(small_architecture(), seed=5)
    backbone = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("backbone.")}
    safetensors.torch.save_file(backbone, tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped):
        train(prepare(small, tmp_path / "run", weights="weights.safetensors"), stop_at=2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = Retraining.load(tmp_path / "run")
    assert resumed.config.weights == str(tmp_path / "weights.safetensors")
    assert list(train(resumed)[1].losses) == [3, 4]
