"""Read mutated files as the command line does: each is accepted or refused with one line, whatever is in it.

    python benchmarks/fuzz.py --inputs 50000 --work runs/fuzz

Inputs are made from real files of every kind that a user could be handed, each from its number and `--seed` alone.
They are read in child processes, a batch after the other, with 1 GiB of memory beyond what an idle child has. An input
counts as a failure if reading it raises what `nasseg` would report as a bug (exit code 1), tells more than one line or
300 characters, takes over 5 seconds of processor time, ends its process, starts a program, connects somewhere, or
writes, renames or removes a file outside of its folder. Failed inputs are kept in `--work`; finished batches are not
run again. `--kind KIND --only NUMBER` reads one again and shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import mutations
import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from scipy.io import savemat

from nasseg.cli.main import main as nasseg
from nasseg.cost.calibration import Calibration, PredictionError
from nasseg.cost.latency_table import Conditions, Entry, LatencyTable, operators_of
from nasseg.data import Block, FeatureCache, open_dataset
from nasseg.data.folder import FolderDataset, read_image
from nasseg.data.formats.matlab import read_segmentation
from nasseg.errors import LONGEST, one_line, shortened
from nasseg.experiment.experiment import Experiment
from nasseg.experiment.record import Record
from nasseg.export.files import OnnxNetwork, with_info
from nasseg.export.options import ExportInfo, ExportOptions
from nasseg.export.shipped import onnx_of
from nasseg.graph import Architecture, Builder, save
from nasseg.network import Network
from nasseg.ops import Conv, Resize, logits1x1
from nasseg.planning.budget import Budget
from nasseg.planning.config import Plan, SearchConfig
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.objective import Objective
from nasseg.report.relaxation import snapshots
from nasseg.report.search import SearchReporter
from nasseg.run_folder import save_config
from nasseg.space.weighted_graph import WeightedEdge, WeightedGraph, WeightedNode
from nasseg.train.checkpoint import restore, save_checkpoint
from nasseg.train.model import load_model, save_model
from nasseg.train.provenance import DataInfo, Provenance, versions
from nasseg.train.recipe import Recipe
from nasseg.train.relaxation.trainer import RelaxationSnapshot
from nasseg.train.retrain import RetrainConfig, Retraining
from nasseg.train.retraining.history import History
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import read_weights
from search_spaces.dpc import DPC

MEMORY_BYTES, SECONDS, BATCH = 1 << 30, 5.0, 1500
DATA = "streets:size=32x64,train=6,val=3,test=2"
SPACE = "dpc:branches=2,filters=8"
RECIPE = Recipe(steps=4, batch_size=2, crop=(32, 64), amp=False)
RUNGS = (2, 6)


class Kind(NamedTuple):
    """Files of one kind: where one lies in the corpus, how it is mutated, and what reads it from the folder there."""

    file: str
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[], object]
    share: float = 1


def command(*arguments: str) -> Callable[[], None]:
    """Run `nasseg ARGUMENTS…` in this process; raises `Told` for what it says when it fails."""

    def run() -> None:
        sys.argv = ["nasseg", *arguments]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                nasseg()
        except SystemExit as ended:
            if ended.code:
                raise Told(said.getvalue().removeprefix("nasseg: ").removesuffix("\n"), int(ended.code)) from None

    return run


class Told(Exception):  # noqa: N818
    """What a command has said, with its exit code."""


def described(arch: str) -> Callable[[], None]:
    return command("describe", arch, "--size", "32x64", "--json")


def weights_of(file: str) -> Callable[[], object]:
    return lambda: read_weights(Path(file))


def read_table() -> None:
    table = LatencyTable.load("table.json")
    network = small_network()
    if not table.missing(network):
        table.latency_ms(network)
    with contextlib.suppress(ValueError):  # another size is told, not a fault of the table
        table.check((32, 64), table.conditions.dtype, [network])


def read_search() -> None:
    search = Experiment.open(Path("search"))
    reporter = SearchReporter(search)
    reporter.summary()


def read_model() -> None:
    network, _ = load_model(Path("model.safetensors"))
    with torch.inference_mode():
        network(torch.zeros(1, 3, 32, 64))


def read_checkpoint() -> None:
    trainer = Trainer(Network(small_network()), RECIPE, RECIPE.steps, torch.device("cpu"), 0, 255)
    restore(trainer, Path("checkpoint.pt"))


def read_exported() -> None:
    exported = OnnxNetwork.open(Path("exported.onnx"))
    exported(torch.zeros(1, 3, 32, 64))


def read_data() -> None:
    data = FolderDataset("data")
    for split in data.splits():
        part = data.split(split)
        assert part.fingerprint
        if len(part) < 1000:
            part.check()


def read_features() -> None:
    (folder,) = Path("features").glob("*[0-9a-f]")
    next(FeatureCache(folder).batches(2, 0))


def read_retraining() -> None:
    training = Retraining.load(Path("retraining"))
    training.network()


KINDS: dict[str, Kind] = {
    "architecture": Kind("best.json", mutations.mutated_json, described("best.json"), 0.5),
    "choice": Kind("point.json", mutations.mutated_json, described("point.json:filters=16"), 0.3),
    "published cell": Kind("cell.json", mutations.mutated_json, described("cell.json"), 0.1),
    "options": Kind(
        "options.yaml", mutations.mutated_yaml, command("describe", "unet", "--config", "options.yaml"), 0.3
    ),
    "latency table": Kind("table.json", mutations.mutated_json, read_table),
    "search's config": Kind("search/config.yaml", mutations.mutated_yaml, read_search, 0.5),
    "record": Kind("search/study.journal", mutations.mutated_journal, read_search, 0.5),
    "time spent": Kind("search/spent_seconds.json", mutations.mutated_json, read_search, 0.1),
    "retraining's config": Kind("retraining/config.yaml", mutations.mutated_yaml, read_retraining),
    "retraining's network": Kind("retraining/architecture.json", mutations.mutated_json, read_retraining),
    "validations": Kind(
        "retraining/validations.json", mutations.mutated_json, lambda: History.load(Path("retraining")), 0.3
    ),
    "exported file": Kind("exported.onnx", mutations.mutated_onnx, read_exported),
    "snapshot": Kind("search/relaxation/seed0.json", mutations.mutated_json, lambda: snapshots("search")),
    "model": Kind("model.safetensors", mutations.mutated_safetensors, read_model),
    "weights": Kind("model.safetensors", mutations.mutated_safetensors, weights_of("model.safetensors"), 0.5),
    "checkpoint": Kind("checkpoint.pt", mutations.mutated_checkpoint, read_checkpoint, 0.5),
    "weights in a checkpoint": Kind("weights.pt", mutations.mutated_checkpoint, weights_of("weights.pt")),
    "dataset.json": Kind("data/dataset.json", mutations.mutated_json, read_data),
    "split": Kind("data/splits/few.txt", mutations.mutated_lines, read_data),
    "image": Kind("data/images/train/a.png", mutations.mutated_image, read_data),
    "photograph": Kind("photograph.jpg", mutations.mutated_image, lambda: read_image(Path("photograph.jpg"))),
    "mask": Kind("data/masks/train/a.png", mutations.mutated_image, read_data),
    "MATLAB mask": Kind("mask.mat", mutations.mutated_bytes, lambda: read_segmentation(Path("mask.mat"))),
    "features": Kind("features/*/index.json", mutations.mutated_json, read_features, 0.5),
}


@cache
def small_network(classes: int = 13) -> Architecture:
    g = Builder("small")
    image = g.input()
    x = g.add("backbone.conv", Conv(out_channels=8, stride=2), image)
    logits = g.add("head.logits", logits1x1(classes), x)
    return g.build(g.add("head.upsample", Resize(), logits, image))


def make_corpus(folder: Path) -> None:
    """Write a file of each kind."""
    for name in ("search/relaxation", "retraining", "data/images/train", "data/masks/train", "data/splits"):
        (folder / name).mkdir(parents=True)
    info = DataInfo.of(open_dataset(DATA), "train", "val", (32, 64))
    origin = Provenance(data=info, miou={"proxy": 0.5}, versions=versions())
    network = small_network()
    save(origin.on(network), folder / "best.json")
    save(network, folder / "retraining" / "architecture.json")
    points = DPC(branches=2, filters=8)
    choice = points.references()["aspp"]
    point = points.architecture(choice, 13).replace(space=SPACE, choice=choice.model_dump(mode="json"))
    save(origin.on(point), folder / "point.json")
    cell = [{"op": "conv", "kernel": 3, "rate": [1, 6], "input": -1}, {"op": "conv", "kernel": 1, "input": 0}]
    cell += [{"op": "pyramid_pooling", "grid_size": [1, 2], "input": 1}, *cell[:1] * 2]
    (folder / "cell.json").write_text(json.dumps(cell))
    (folder / "options.yaml").write_text(yaml.safe_dump({"size": "32x64", "classes": 3, "json": True}))
    _write_table(folder / "table.json", network)
    _write_search(folder / "search", points)
    config = RetrainConfig(
        data=DATA, train_split="train", val_split="val", weights=None, recipe=RECIPE, device="cpu", seed=0, workers=0
    )
    save_config(config, folder / "retraining")
    built = Network(network)
    save_model(folder / "model.safetensors", built, origin)
    exported = ExportInfo(
        architecture="small", params=1, madds=1, options=ExportOptions(size=(32, 64), images="any"), provenance=origin
    )
    (folder / "exported.onnx").write_bytes(with_info(onnx_of(built, exported.options), exported))
    History().adding(2, 0.1).adding(4, 0.2).save(folder / "retraining")
    save_checkpoint(folder / "checkpoint.pt", Trainer(built, RECIPE, 4, torch.device("cpu"), 0, 255).state_dict())
    save_checkpoint(folder / "weights.pt", built.state_dict())
    _write_data(folder / "data")
    Image.effect_noise((64, 48), 50).convert("RGB").save(folder / "photograph.jpg")
    savemat(folder / "mask.mat", {"GTcls": {"Segmentation": np.zeros((7, 9), np.uint8), "CategoriesPresent": 1}})

    def compute(block: Block) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {"backbone.conv": torch.zeros(3, 2, 4, 8)}, torch.zeros(3, 8, 16)

    FeatureCache.open_or_fill(folder / "features", {"seed": 0}, 1, 3, 3, compute)


def _write_table(path: Path, network: Architecture) -> None:
    found = dict.fromkeys(operators_of(network, (32, 64)))
    wider = dict.fromkeys(operators_of(network.replace(name="other"), (64, 128)))
    LatencyTable(
        space=SPACE,
        conditions=Conditions(device="a phone", dtype="float32", backend="eager", batch=1, size=(32, 64), threads=1),
        operators_found=len(found) + len(wider) + 1,
        calibration=Calibration(fixed_ms=1.0),
        error=PredictionError(networks=30, spearman=0.99, mape_percent=1.5),
        entries=tuple(
            Entry(operator=o, median_ms=n + 1, low_ms=n, high_ms=n + 2) for n, o in enumerate({**found, **wider})
        ),
    ).save(path)


def _write_search(folder: Path, points: DPC) -> None:
    """Write the run folder of a search of four candidates that never was."""
    plan = Plan(
        image_scale=1.0,
        rungs=RUNGS,
        full_steps=4,
        candidates=4,
        finalists=1,
        seeds=1,
        views=1,
        threads=1,
        proxy_recipe=RECIPE,
        full_recipe=RECIPE,
    )
    SearchConfig(
        budget=Budget.parse("4trials"),
        space=SPACE,
        data=DATA,
        sampler="random",
        objective="score",
        device="cpu",
        runner="in-process",
        concurrency=1,
        plan=plan,
    ).save(folder)
    record = Record.open_journal(
        folder / "study.journal", points, RUNGS[-1], Objective(weight=-0.07, reference_cost=1e6)
    )
    rng = random.Random(0)
    choices = {"aspp": points.references()["aspp"], "": points.sample(rng), " ": points.sample(rng)}
    for number, (label, choice) in enumerate(choices.items()):
        key = points.architecture(choice, 13).key
        candidate = Candidate(key=key, choice=choice.model_dump(mode="json"), label=label.strip() or None)
        jobs: list[tuple[Any, int, int]] = [("proxy", 0, 2), ("proxy", 2, 6), ("full", 0, 4)]
        for task, start, stop in jobs[: 3 - number % 2]:
            job = Job(number=number, task=task, candidates=(candidate,), seed=0, start_step=start, stop_step=stop)
            outcome = Outcome(
                key=key, status="ok", step=stop, miou=rng.random(), class_iou=(0.5,) * 13, madds=10**7, params=10**6
            )
            record.add(JobResult(job=job, outcomes=(outcome,), seconds=1.0), {2: [1.0], "full": [2.0]})
        record.note_best(10.0 * number, 0.4)
    (folder / "spent_seconds.json").write_text("20.0")
    nodes = tuple(WeightedNode(name=name, column=i, row=0, label=name) for i, name in enumerate("ab"))
    graph = WeightedGraph(
        name="cell", title="α", nodes=nodes, edges=(WeightedEdge(source="a", target="b", weight=0.5),)
    )
    snapshot = RelaxationSnapshot(
        seed=0, step=1, steps=2, train_loss=1.0, architecture_loss=None, expected_cost=1.0, graphs=(graph,), choice={}
    )
    (folder / "relaxation" / "seed0.json").write_text(snapshot.model_dump_json())


def _write_data(folder: Path) -> None:
    description = {"classes": ["a", "b"], "palette": [[0, 0, 0], [9, 9, 9]], "ignore_index": 255}
    (folder / "dataset.json").write_text(json.dumps(description))
    for name in ("a", "b"):
        Image.effect_noise((24, 16), 50).convert("RGB").save(folder / "images" / "train" / f"{name}.png")
        Image.new("L", (24, 16), 1).save(folder / "masks" / "train" / f"{name}.png")
    (folder / "splits" / "few.txt").write_text("train/a\ntrain/b\n")


class TooSlow(BaseException):
    """An input took too much of the processor."""


class Sandbox:
    """A copy of the corpus in which files are read; what is done outside of it is noted."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(corpus, folder)
        self.folder, self.watched = folder.resolve(), False
        self.outside: list[str] = []
        os.chdir(self.folder)
        os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")  # where the user's own cache would be
        platform.platform()  # runs `uname` once
        sys.dont_write_bytecode = True
        sys.addaudithook(self._note)
        signal.signal(signal.SIGPROF, self._interrupt)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watched:
            return
        if event in {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}:
            self.outside.append(f"{event} {arguments[:2]}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._check(event, path)
        elif event in {
            "os.rename",
            "os.remove",
            "os.mkdir",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
            "sqlite3.connect",
        }:
            self._check(event, arguments[1] if event in {"os.rename", "os.link", "os.symlink"} else arguments[0])

    def _check(self, event: str, path: object) -> None:
        if isinstance(path, (str, bytes)) and os.fsdecode(path) not in {os.devnull, ":memory:"}:
            full = Path(os.path.realpath(os.fsdecode(path)))
            if not full.is_relative_to(self.folder):
                self.outside.append(f"{event} {full}")

    @staticmethod
    def _interrupt(*_: object) -> None:
        raise TooSlow

    def read(self, kind: Kind) -> tuple[str, str | None]:
        """Read one input; returns accepted, refused or failed, and what was said."""
        self.outside.clear()
        self.watched = True
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", UserWarning)
                warnings.simplefilter("always", RuntimeWarning)
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # as nasseg.data.folder does
                kind.read()
        except TooSlow:
            status, said = "failed", f"over {SECONDS:g} s: {_where()}"
        except Told as told:
            line, code = told.args
            status, said = ("refused" if code == 2 and _is_line(line) else "failed"), f"{code}: {line}"
        except (ValueError, OSError) as error:  # as nasseg.cli.main does
            line = one_line(error) if isinstance(error, ValidationError) else str(error)
            status, said = ("refused" if _is_line(shortened(line)) else "failed"), line
        except Exception as error:
            status, said = "failed", f"{type(error).__name__}: {str(error)[:300]}: {_where()}"
        else:
            status, said = "accepted", None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.watched = False
        if warned and status == "refused":
            status, said = "failed", f"warned: {warned[0].message}"
        if self.outside:
            status, said = "failed", f"outside: {self.outside[:3]}"
        return status, said


def _is_line(line: str) -> bool:
    return 0 < len(line) <= LONGEST and line.isprintable() and "pydantic.dev" not in line and "Traceback" not in line


def _where() -> str:
    frames = traceback.extract_tb(sys.exc_info()[2])
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-6:]))


def input_of(kind: str, content: bytes, seed: int, number: int) -> bytes:
    return KINDS[kind].mutate(content, random.Random(f"{seed} {kind} {number}"))


def run_batch(name: str, numbers: range, seed: int, work: Path, show: bool = False) -> dict[str, Any]:
    """Read a batch of inputs in this process; returns the counts and the failures."""
    kind = KINDS[name]
    sandbox = Sandbox(work / "corpus", work / f"sandbox-{os.getpid()}")
    (file,) = sandbox.folder.glob(kind.file)
    original = file.read_bytes()
    sandbox.read(kind)  # imports write into the folder for temporary files
    status, said = sandbox.read(kind)
    if status != "accepted":
        raise RuntimeError(f"the {name} of the corpus is {status}: {said}")
    _limit_memory()
    counts, failures, slowest, begun = Counter(), [], 0.0, time.process_time()
    progress = _progress(name, numbers, work)
    for number in numbers:
        content = input_of(name, original, seed, number)
        progress.write_text(str(number))
        file.write_bytes(content)
        start = time.process_time()
        status, said = sandbox.read(kind)
        slowest = max(slowest, time.process_time() - start)
        counts[status] += 1
        if status == "failed":
            failures.append({"kind": name, "number": number, "said": said})
            (work / "failed").mkdir(exist_ok=True)
            (work / "failed" / f"{name.replace(' ', '-')}-{number}").write_bytes(content)
        if show:
            print(f"{status}: {said}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    progress.unlink()
    os.chdir(work)
    shutil.rmtree(sandbox.folder)
    return {
        "kind": name,
        "first": numbers.start,
        "counts": counts,
        "failures": failures,
        "slowest_s": slowest,
        "peak_bytes": peak,
        "seconds": time.process_time() - begun,
    }


def _progress(name: str, numbers: range, work: Path) -> Path:
    """The file with the number of the input that is being read."""
    return work / f"progress-{name.replace(' ', '-')}-{numbers.start}"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = {resource.RLIMIT_AS: pages * resource.getpagesize() + MEMORY_BYTES, resource.RLIMIT_FSIZE: 1 << 28}
    for what, limit in limits.items():
        resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))


def batches(inputs: int) -> Iterator[tuple[str, range]]:
    """Divide the inputs among the kinds, in batches that take turns."""
    shares = sum(kind.share for kind in KINDS.values())
    left = {name: range(math.ceil(inputs * kind.share / shares)) for name, kind in KINDS.items()}
    while any(left.values()):
        for name, numbers in left.items():
            if numbers:
                yield name, numbers[:BATCH]
                left[name] = numbers[BATCH:]


def run_in_child(name: str, numbers: range, seed: int, work: Path) -> dict[str, Any]:
    """Read a batch in a process of its own; one that it ends is a failure, and the rest goes on in another."""
    arguments = ["--batch", name, str(numbers.start), str(numbers.stop), "--seed", str(seed), "--work", str(work)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=3600,
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    at = int(_progress(name, numbers, work).read_text())
    failure = {"kind": name, "number": at, "said": f"process ended with {done.returncode}: {done.stderr[-300:]}"}
    (work / "failed").mkdir(exist_ok=True)
    rest = [
        run_in_child(name, part, seed, work) for part in (range(numbers.start, at), range(at + 1, numbers.stop)) if part
    ]
    return {
        "kind": name,
        "first": numbers.start,
        "counts": Counter({"failed": 1}) + sum((Counter(part["counts"]) for part in rest), Counter()),
        "failures": [failure, *(one for part in rest for one in part["failures"])],
        "slowest_s": max([0.0, *(part["slowest_s"] for part in rest)]),
        "peak_bytes": max([0, *(part["peak_bytes"] for part in rest)]),
        "seconds": sum(part["seconds"] for part in rest),
    }


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {}
    for name in KINDS:
        own = [result for result in results if result["kind"] == name]
        counts = sum((Counter(result["counts"]) for result in own), Counter())
        kinds[name] = {
            "inputs": counts.total(),
            **{status: counts[status] for status in ("accepted", "refused", "failed")},
            "slowest_s": round(max([0.0, *(result["slowest_s"] for result in own)]), 3),
            "peak_mib": max([0, *(result["peak_bytes"] for result in own)]) >> 20,
        }
    failures = [failure for result in results for failure in result["failures"]]
    total = {key: sum(kind[key] for kind in kinds.values()) for key in ("inputs", "accepted", "refused", "failed")}
    return {
        **total,
        "slowest_s": max(kind["slowest_s"] for kind in kinds.values()),
        "peak_mib": max(kind["peak_mib"] for kind in kinds.values()),
        "kinds": kinds,
        "failures": failures[:100],
        "versions": {**versions(), "pillow": Image.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--jobs", type=int, default=1, help="child processes at once; 0 reads all in this one")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--only", type=int, help="with --kind: the number of one input to read again")
    parser.add_argument("--batch", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work.resolve()
    torch.set_num_threads(1)
    if options.batch:
        name, start, stop = options.batch
        print(json.dumps(run_batch(name, range(int(start), int(stop)), options.seed, work)))
        return
    if not (work / "corpus").exists():
        work.mkdir(parents=True, exist_ok=True)
        make_corpus(work / "making")
        (work / "making").rename(work / "corpus")
    if options.only is not None:
        run_batch(options.kind, range(options.only, options.only + 1), options.seed, work, show=True)
        return
    log = work / f"results-{options.seed}.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(result["kind"], result["first"]) for result in results}
    todo = [
        (name, numbers, options.seed, work)
        for name, numbers in batches(options.inputs)
        if (name, numbers.start) not in done and options.kind in {None, name}
    ]
    pool = ThreadPoolExecutor(max(1, options.jobs))
    for result in pool.map(run_in_child, *zip(*todo, strict=True)) if options.jobs else starmap(run_batch, todo):
        results.append(result)
        with log.open("a") as file:
            file.write(json.dumps(result) + "\n")
        said = f"{result['kind']} {result['first']}: {dict(result['counts'])}, slowest {result['slowest_s']:.2f} s"
        print(f"{said}, {result['peak_bytes'] >> 20} MiB, {result['seconds']:.0f} s", file=sys.stderr, flush=True)
        for failure in result["failures"][:5]:
            print(f"  {failure['number']}: {failure['said']}", file=sys.stderr, flush=True)
    found = summary(results)
    print(f"{'kind':24} inputs accepted refused failed slowest/s peak/MiB")
    for name, kind in found["kinds"].items():
        print(
            f"{name:24} {kind['inputs']:6} {kind['accepted']:8} {kind['refused']:7} {kind['failed']:6} "
            f"{kind['slowest_s']:9.2f} {kind['peak_mib']:8}"
        )
    print(json.dumps(found))
    sys.exit(1 if found["failed"] else 0)


if __name__ == "__main__":
    main()
