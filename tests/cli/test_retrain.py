import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nasseg.data import evaluation_batches, open_dataset
from nasseg.data.checking import survey
from nasseg.report.retrain import RetrainReporter
from nasseg.train.evaluate import evaluate
from nasseg.train.model import load_model
from nasseg.train.trainer import Trainer
from tests.train.made_up import CLASSES, DATA

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]
SHORT = ("--steps", 3, "--batch-size", 2)


def test_retrain_then_evaluate_then_predict(
    nasseg: Run, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    monkeypatch.setattr("nasseg.train.device.choose_threads", lambda: 1)
    run = tmp_path / "run"
    done = nasseg("retrain", arch, "--data", DATA, *SHORT, "--out", run, "--json")
    trained = done.document
    assert (trained["folder"], trained["steps"]) == (str(run), 3)
    assert "3 steps of 2 crops 32x64" in done.err
    assert "computing with 1 thread on 5 cores\n" in done.err
    models = {"model.safetensors", "best.safetensors"}
    assert models | {"config.yaml", "architecture.json", "metrics.json", "validations.json", "tensorboard"} == set(
        os.listdir(run)
    )

    scores = nasseg("evaluate", run, "--split", "val", "--json").document
    assert scores["miou"] == pytest.approx(trained["miou"], abs=1e-6)
    assert (scores["images"], len(scores["classes"]), len(scores["class_iou"])) == (3, CLASSES, CLASSES)
    averaged = nasseg("evaluate", run, "--split", "val", "--scales", "0.5,1", "--flip", "--json").document
    network, cpu = load_model(run)[0], torch.device("cpu")
    batches = (batch for batch, _ in evaluation_batches(open_dataset(DATA).split("val"), 4, cpu))
    expected = evaluate(network, batches, CLASSES, 255, cpu, scales=(0.5, 1), flip=True)
    assert averaged["confusion"] == [list(row) for row in expected.confusion]

    sample = open_dataset(DATA).split("test")[0]
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(tmp_path / "street.jpg")
    assert nasseg("predict", run, tmp_path / "street.jpg", "--out", tmp_path / "seen").code == 0
    with Image.open(tmp_path / "seen" / "street.png") as mask:
        assert (mask.size, mask.mode) == ((64, 32), "P")
        assert int(np.asarray(mask).max()) < CLASSES
    with Image.open(tmp_path / "seen" / "street-overlay.jpg") as overlay:
        assert overlay.size == (64, 32)


def test_a_run_folder_is_named_by_itself(
    nasseg: Run, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = nasseg("retrain", arch, "--data", DATA, *SHORT)
    assert (done.code, done.out) == (0, "")
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("retrain-")


def test_the_end_tells_every_class_the_best_model_and_what_is_next(nasseg: Run, arch: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = nasseg("retrain", arch, "--data", DATA, *SHORT, "--validate-every", 2, "--out", run)
    assert "validation on 3 images of val every 2 steps, 2 in all (--validate-every)\n" in done.err
    assert all(name in done.err for name in open_dataset(DATA).classes)
    assert f"at step 3, the last: {run / 'model.safetensors'}\n" in done.err
    assert "next:\n  nasseg evaluate " in done.err
    command = next(line for line in done.err.splitlines() if line.startswith("  nasseg evaluate ")).split()
    assert command[-2:] == ["--split", "test"]
    assert nasseg(*command[1:]).code == 0
    history = json.loads((run / "validations.json").read_text())["validations"]
    assert [known["step"] for known in history] == [2, 3]
    best = max(known["miou"] for known in history)
    assert f"{best:.4f}" in done.err


@pytest.mark.parametrize("options", [(), ("--weights", "none")], ids=["silently", "on purpose"])
def test_random_weights_are_warned_of_unless_they_are_wanted(
    nasseg: Run, arch: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = nasseg("retrain", arch, "--data", DATA, *SHORT, "--out", tmp_path / "run", *options)
    assert ("warning: the backbone starts from random weights; --weights" in done.err) == (options == ())


def test_an_interrupted_training_says_how_it_goes_on(
    nasseg: Run, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = RetrainReporter.step

    def interrupted(self: RetrainReporter, trainer: Trainer, loss: float, learning_rate: float) -> None:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        step(self, trainer, loss, learning_rate)

    monkeypatch.setattr(RetrainReporter, "step", interrupted)
    run = tmp_path / "my run"
    done = nasseg("retrain", arch, "--data", DATA, *SHORT, "--out", run)
    assert done.code == 130
    again = ["nasseg", "retrain", str(arch), "--resume", "--out", str(run)]
    assert shlex.split(done.err.splitlines()[-1]) == again
    monkeypatch.setattr(RetrainReporter, "step", step)
    assert nasseg("retrain", arch, "--resume", "--out", run).code == 0
    assert (run / "model.safetensors").exists()


def retrain_on_two_workers(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nasseg", "retrain", *options, "--data", DATA, "--workers", 2]
    return subprocess.run([*map(str, command)], capture_output=True, text=True)


@pytest.mark.slow
def test_two_workers_train_with_ray(arch: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = retrain_on_two_workers(arch, *SHORT, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    assert "on 2 workers, cpu" in done.stderr
    assert "step 3: mIoU " in done.stderr
    history = json.loads((run / "validations.json").read_text())["validations"]
    assert [known["step"] for known in history] == [1, 2, 3]
    assert json.loads(done.stdout)["miou"] == history[-1]["miou"]


@pytest.mark.long
def test_two_workers_say_what_went_wrong(arch: Path, tmp_path: Path) -> None:
    diverging = ("--learning-rate", 1e30, "--batch-size", 2, "--steps", 20, "--out", tmp_path / "bad")
    done = retrain_on_two_workers(arch, *diverging)
    assert done.returncode == 2
    assert "the loss is not finite" in done.stderr


def test_options_of_retraining(nasseg: Run, refused: Refused, arch: Path, tmp_path: Path) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    assert nasseg("retrain", arch, "--data", DATA, *SHORT, "--out", teacher).code == 0
    options = ("--teacher", teacher, "--teacher-weight", 2, "--accumulate", 2, "--patience", 4, "--validate-every", 2)
    assert nasseg("retrain", arch, "--data", DATA, *SHORT, *options, "--out", run).code == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["teacher"], config["patience"], config["validate_every"]) == (str(teacher.resolve()), 4, 2)
    assert (config["recipe"]["teacher_weight"], config["recipe"]["accumulate"]) == (2.0, 2)
    assert "no such file" in refused("retrain", arch, "--data", DATA, "--teacher", tmp_path / "nothing")
    assert "log is 'x', but must be one of wandb, mlflow" in refused("retrain", arch, "--data", DATA, "--log", "x")


def test_a_batch_must_have_equal_shares(refused: Refused, arch: Path) -> None:
    message = refused("retrain", arch, "--data", DATA, "--workers", 3, "--batch-size", 4)
    assert "batch_size is 4, but must be a multiple of the 3 workers" in message
    message = refused("retrain", arch, "--data", DATA, "--workers", 2, "--batch-size", 4, "--accumulate", 3)
    assert "accumulate is 3, but each worker has 2 images of a batch" in message


def test_a_config_file_gives_the_options(
    nasseg: Run, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yaml").write_text(
        yaml.safe_dump({"data": DATA, "steps": 2, "batch-size": 2, "learning_rate": 0.5, "out": "run"})
    )
    assert nasseg("retrain", "--config", tmp_path / "options.yaml", arch, "--steps", 3).code == 0
    recipe = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["recipe"]
    assert (recipe["steps"], recipe["batch_size"], recipe["learning_rate"]) == (3, 2, 0.5)


def test_the_config_of_a_run_gives_its_options(
    nasseg: Run, refused: Refused, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ("--recipe", "long", "--boundary-weight", 2, "--readers", 0, "--weights", "none", "--patience", 9, *SHORT)
    assert nasseg("retrain", arch, "--data", DATA, "--out", "one", *changes).code == 0
    done = nasseg("retrain", arch, "--config", "one/config.yaml", "--out", "two")
    assert done.err.startswith("one/config.yaml: taking this run's options as given; what was derived")
    one, two = (Path(run, "config.yaml").read_text() for run in ("one", "two"))
    assert one == two
    Path("odd.yaml").write_text(one.replace("poly_power: 0.9", "poly_power: 0.7"))
    message = refused("retrain", arch, "--config", "odd.yaml")
    assert message.startswith("odd.yaml: its recipe is none of short, long, stdc, ")
    Path("odd.yaml").write_text(one.replace("steps: 3", "steps: three"))
    assert refused("retrain", arch, "--config", "odd.yaml").startswith("odd.yaml: recipe.steps is 'three', but")


def test_options_of_the_recipe(nasseg: Run, refused: Refused, arch: Path, tmp_path: Path) -> None:
    options = ("--recipe", "long", "--boundary-weight", 2, "--detail-head", *SHORT)
    assert nasseg("retrain", arch, "--data", DATA, "--out", tmp_path / "run", *options).code == 0
    recipe = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["recipe"]
    assert (recipe["optimizer"], recipe["steps"], recipe["batch_size"]) == ("adamw", 3, 2)
    assert (recipe["boundary_weight"], recipe["detail_head"]) == (2.0, True)
    assert "boundary-weight" in refused("retrain", arch, "--data", DATA, "--boundary-weight", -1)


def test_classes_are_weighed(nasseg: Run, refused: Refused, arch: Path, tmp_path: Path) -> None:
    retrain = ("retrain", arch, "--data", DATA, *SHORT)
    assert nasseg(*retrain, "--class-weights", "balanced", "--out", tmp_path / "run").code == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert tuple(config["recipe"]["class_weights"]) == survey(open_dataset(DATA).split("train")).balanced_weights()
    config = tmp_path / "run" / "config.yaml"
    assert nasseg("retrain", arch, "--config", config, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == config.read_text()
    assert "class_weights is 'rare', but must be balanced or numbers" in refused(*retrain, "--class-weights", "rare")
    assert "class_weights are 2, but the data has 13 classes" in refused(*retrain, "--class-weights", "1,2")
    assert "do not apply to loss 'ohem'" in refused(*retrain, "--recipe", "stdc", "--class-weights", "balanced")


def test_folders_and_resuming(refused: Refused, arch: Path, tmp_path: Path) -> None:
    assert "--resume needs --out RUN" in refused("retrain", arch, "--resume")
    for option, value in (("--steps", 5), ("--seed", 0), ("--no-detail-head", None)):
        given = [option] if value is None else [option, value]
        line = refused("retrain", arch, "--resume", "--out", tmp_path, *given)
        assert line.startswith(f"{option.replace('no-', '')} cannot change while a training goes on; leave it out")
    assert "holds no config.yaml" in refused("retrain", arch, "--resume", "--out", tmp_path)
    assert "exists already; continue it with --resume" in refused("retrain", arch, "--data", DATA, "--out", tmp_path)


def all_void(folder: Path) -> None:
    for name in "ab":
        Image.fromarray(np.full((32, 48), 255, np.uint8)).save(folder / f"masks/train/{name}.png")


def one_class(folder: Path) -> None:
    """What masks of 0 and 255 are where 255 is void."""
    for path in (folder / "masks").rglob("*.png"):
        Image.fromarray(np.eye(32, 48, dtype=np.uint8) * 255).save(path)


def index_out_of_range(folder: Path) -> None:
    Image.fromarray(np.full((32, 48), 3, np.uint8)).save(folder / "masks/train/b.png")


def other_size(folder: Path) -> None:
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(folder / "masks/train/b.png")


def truncated(folder: Path) -> None:
    image = folder / "images/train/b.jpg"
    image.write_bytes(image.read_bytes()[:-200])


def no_description(folder: Path) -> None:
    (folder / "dataset.json").unlink()


def wrong_palette(folder: Path) -> None:
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(json.dumps({**json.loads(text), "palette": [[0, 0, 0]]}))


@pytest.mark.parametrize("command", ["retrain", "search"])
@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (all_void, "all pixels of train are ignored"),
        (one_class, 'masks hold 0 and 255: write "classes": {"background": 0, "object": 255}'),
        (index_out_of_range, "masks/train/b.png holds class index 3, but must hold 0 to 2, or 255"),
        (other_size, "masks/train/b.png is 32x40, but must have the size of its image"),
        (truncated, "images/train/b.jpg cannot be read: "),
        (no_description, "dataset.json is missing"),
        (wrong_palette, "palette has 1 colours, but must have one for each of the 3 classes"),
    ],
)
def test_data_that_cannot_be_used(
    refused: Refused, folder: Path, tmp_path: Path, command: str, harm: Callable[[Path], None], line: str
) -> None:
    harm(folder)
    what = ("retrain", "dpc:filters=8,branches=1") if command == "retrain" else ("search", "--budget", "4trials")
    assert line in refused(*what, "--data", f"folder:{folder}", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there(refused: Refused, arch: Path) -> None:
    assert "/nothing is not a folder: folder:PATH needs one" in refused("retrain", arch, "--data", "folder:/nothing")
    assert "unknown data set 'strets'" in refused("retrain", arch, "--data", "strets")
    assert "streets has no option 'sise'" in refused("retrain", arch, "--data", "streets:sise=3")


@pytest.mark.parametrize("content", [b"hi\n", b"", b"\x80\x02garbage"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_that_are_none(refused: Refused, arch: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused("retrain", arch, "--data", DATA, "--weights", tmp_path / name, "--out", tmp_path / "run")
    assert re.match(rf"{tmp_path / name}(: not a checkpoint| is not a safetensors file| has a header of)", message)
    assert not (tmp_path / "run").exists()


def test_a_run_with_weights_of_classes_for_a_later_recipe_gives_its_options(
    nasseg: Run, arch: Path, tmp_path: Path
) -> None:
    weights = "1.23456789," + ",".join("1" * 12)
    given = ("--recipe", "deeplab", "--class-weights", weights, *SHORT)
    one, two = tmp_path / "one", tmp_path / "two"
    assert nasseg("retrain", arch, "--data", DATA, "--out", one, *given).code == 0
    assert nasseg("retrain", arch, "--config", one / "config.yaml", "--out", two).code == 0
    assert (one / "config.yaml").read_text() == (two / "config.yaml").read_text()
    recipe = yaml.safe_load((two / "config.yaml").read_text())["recipe"]
    assert (recipe["class_weights"][0], recipe["head_multiplier"]) == (1.23456789, 1.0)


def test_commands_to_go_on_with_name_folders_with_spaces(nasseg: Run, arch: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    done = nasseg(
        "retrain", arch, "--data", DATA, *SHORT, "--train-split", "train+test", "--val-split", "50%", "--out", run
    )
    assert done.code == 0
    *_, evaluate, predict = done.err.splitlines()
    assert shlex.split(evaluate)[2].startswith(str(run))
    assert shlex.split(evaluate)[3:] == ["--split", "train+test@50%"]  # not test, on which it was trained
    assert shlex.split(predict)[2] == shlex.split(evaluate)[2]
