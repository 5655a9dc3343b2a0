"""The speed of a trial on stored features, against other ways to train the same cell and against other versions.

    python benchmarks/trial_throughput.py --data folder:PATH --train-split search-train --val-split search-val \
        --weights FILE
    python benchmarks/trial_throughput.py --features 320x49x49 --classes 21 --batch 8 --steps 200 --device cuda
    git worktree add ../before COMMIT
    python benchmarks/trial_throughput.py --checkouts ../before . --steps 60

By default, in one process and in turns, trials of the published cell take the same number of steps: as a search runs
them; by a plain loop on the same features (PyTorch's own kernels, a batch gathered on the host and copied at each step,
each loss read, each batch's predictions counted by itself), in float32 and in the search's number format; with the
frozen backbone run at each step; and end to end. All are scored on the validation split as in a search. With
`--features`, features are made up, and the last two are left out. On a GPU the search's way is also run without CUDA
graphs, and without kernels of our own.

A second table compares a step's time with the device's limit: the bytes that the step's operators read and write, one
after the other, by the speed at which the device copies a large tensor. Cells per hour are those of runs of 30,000
steps, and with early stopping: a third of them go on at each of 1,111, 3,333 and 10,000 steps.

With `--checkouts`, each version runs the same proxy jobs, cells of the space in turns, in processes of its own.

One thread on a CPU is timed by the processor's clock, which other programs change less; everything else by the wall's.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.dense_prediction_cell import ASPP, PUBLISHED
from nasseg.data import Batch, FeatureCache, open_dataset, training_batches
from nasseg.data.resident import ResidentFeatures
from nasseg.data.resized import scaled
from nasseg.jobs.features import sampled, with_image_size
from nasseg.jobs.worker import Worker
from nasseg.planning.budget import Budget
from nasseg.planning.config import Plan, SearchConfig
from nasseg.planning.job import Job
from nasseg.planning.plan import search_crop
from nasseg.train.device import autocast, to_device
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import seeded_network
from nasseg.train.recipe import Recipe
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer
from search_spaces.dpc import DPC

PAPER_STEPS, RUNGS = 30_000, (1_111, 3_333, 10_000, 30_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="dpc")
    parser.add_argument("--data", default="streets")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--weights")
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--features", help="channels x height x width of made-up ones, as 320x49x49")
    parser.add_argument("--images", type=int, default=512, help="of which features are made up, an eighth to score on")
    parser.add_argument("--classes", type=int, default=21, help="of made-up features")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkouts", nargs="+", type=Path, help="versions to compare, the one before first")
    parser.add_argument("--cells", type=int, default=4, help="drawn at random, besides the two that are known")
    parser.add_argument("--workers", type=int, default=1, help="processes of a version, which run at once")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = versions(args, Path(folder)) if args.checkouts else turns(args, Path(folder))
    setting = ("space", "data", "image_scale", "features", "batch", "steps", "threads", "device", "workers")
    settings = {name: getattr(args, name) for name in setting}
    print(json.dumps({"benchmark": "trial_throughput", "torch": torch.__version__, **settings, **found}))


# --- ways to train a cell, in turns ----------------------------------------------------------------------------------


@dataclass
class Case:
    """Stored features, and what is trained on them."""

    train: FeatureCache
    val: FeatureCache
    part: object
    recipe: Recipe
    classes: int
    ignore_index: int
    device: torch.device

    def network(self):
        return seeded_network(self.part, 0)

    def source(self, cache):
        """The batches of a cache as a search has them."""
        if self.device.type == "cuda":
            return ResidentFeatures(cache, self.device), ()
        return cache, (self.device,)


def turns(args, folder):
    device = torch.device(args.device)
    worker = None if args.features else make_worker(args, folder)
    case = made_up(args, folder, device) if worker is None else stored(worker)
    ways = {
        "as a search": lambda: as_a_search(case),
        "plain loop": lambda: plain(case, False),
        "plain loop, mixed precision": lambda: plain(case, True),
    }
    if device.type == "cuda":
        ways |= {
            "without CUDA graphs": lambda: patched(case, "nasseg.train.trainer.LEAST_REPLAYS", math.inf),
            "without our kernels": lambda: patched(case, "nasseg.ops.conv.convolve", stock),
        }
    on_features = list(ways)
    if worker is not None:
        ways |= {
            "frozen backbone run": lambda: frozen(worker, case),
            "end to end": lambda: end_to_end(worker, case, args),
        }
    trials = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, trial in ways.items():
            trials[name].append(trial())

    seconds = {name: statistics.median(sum(trial[:2]) for trial in found) for name, found in trials.items()}
    print(
        f"\n{args.features or f'{args.space} on {args.data}'}, {args.steps} steps, {args.threads} thread(s), {device}"
    )
    print(f"{'trial':30}{'s':>8}{'of it scoring':>15}{'cells / hour':>15}{'times ours':>12}{'mIoU':>8}")
    for name, found in trials.items():
        scoring, miou = statistics.median(trial[1] for trial in found), found[-1][2]
        ratio = seconds[name] / seconds["as a search"]
        print(f"{name:30}{seconds[name]:8.2f}{scoring:15.2f}{3600 / seconds[name]:15.0f}{ratio:12.2f}{miou:8.3f}")
    steps = {name: statistics.median(trial[0] for trial in trials[name]) / args.steps for name in on_features}
    limit_s, moved = limit(case)
    rungs = sum((stop - start) / 3**level for level, (start, stop) in enumerate(zip((0, *RUNGS), RUNGS, strict=False)))
    print(f"\na step's operators move {moved / 1e6:.0f} MB, for which a copy takes {1e3 * limit_s:.2f} ms")
    print(f"{'step':30}{'ms':>8}{'times limit':>15}{'cells / hour':>15}{'stopped early':>15}")
    for name, step in steps.items():
        whole, early = 3600 / (PAPER_STEPS * step), 3600 / (rungs * step)
        print(f"{name:30}{1e3 * step:8.2f}{step / limit_s:15.2f}{whole:15.2f}{early:15.2f}")
    return {"seconds": seconds, "step_seconds": steps, "limit_seconds": limit_s, "moved_bytes": moved}


def make_worker(args, folder):
    """Make a search's worker, with a trained reference and its features."""
    dataset = open_dataset(args.data)
    crop = search_crop(dataset.split(args.val_split).typical_size(), args.image_scale)
    recipe = short(steps=args.steps, crop=crop, batch_size=args.batch)
    plan = Plan(
        image_scale=args.image_scale,
        rungs=(args.steps,),
        full_steps=args.steps,
        views=4,
        threads=args.threads,
        proxy_recipe=recipe,
        full_recipe=recipe,
    )
    config = SearchConfig(
        budget=Budget.parse("10trials"),
        space=args.space,
        data=args.data,
        train_split=args.train_split,
        val_split=args.val_split,
        weights=args.weights,
        sampler="random",
        objective="score",
        device=args.device,
        plan=plan,
    )
    worker = Worker.open(config, folder)
    worker.run(job(worker, "prepare", ASPP, args.steps))
    worker.proxy.features.store()
    return worker


def job(worker, task, cell, steps):
    problem = worker.context.problem
    candidate = problem.candidate(problem.space.canonical(cell))
    return Job(number=0, task=task, candidates=(candidate,), seed=0, start_step=0, stop_step=steps)


def stored(worker):
    context = worker.context
    problem, features = context.problem, worker.proxy.features
    part = worker.proxy.trained_part(problem.architecture(problem.space.canonical(PUBLISHED)))
    caches = features.cache("train"), features.cache("val")
    return Case(*caches, part, context.plan.proxy_recipe, problem.classes, context.train.ignore_index, problem.device)


def made_up(args, folder, device):
    """Random features in place of a MobileNetV2's last map at stride 16, and masks at a quarter of its stride."""
    channels, height, width = map(int, args.features.split("x"))
    architecture = DPC(output_stride=16).architecture(DPC().canonical(PUBLISHED), args.classes)
    prefix, part = architecture.cut("backbone")
    (name,) = prefix.outputs
    assert architecture.channels(name) == channels, f"the backbone has {architecture.channels(name)} channels"

    def compute(block):
        images, generator = block.stop - block.start, torch.Generator().manual_seed(block.start)
        masks = torch.randint(args.classes, (images, 4 * height, 4 * width), generator=generator)
        return {name: torch.randn(images, channels, height, width, generator=generator)}, masks

    caches = [
        FeatureCache.open_or_fill(folder, {"images": images}, 1, images, 8, compute)
        for images in (args.images, args.images // 8)
    ]
    recipe = short(steps=args.steps, batch_size=args.batch)
    return Case(*caches, part, recipe, args.classes, 255, device)


def as_a_search(case):
    """Train and score as a proxy job does; returns the seconds of both, and the mIoU."""
    recipe = case.recipe
    trainer = Trainer(case.network(), recipe, recipe.steps, case.device, 0, case.ignore_index)
    (train, on), (val, _) = case.source(case.train), case.source(case.val)
    batches = map(with_image_size, train.batches(recipe.batch_size, 0, 0, *on))
    start = settled(case)
    trainer.run(batches, recipe.steps)
    trained = settled(case)
    scored = map(with_image_size, val.sequential(8, *on))
    miou = evaluate(trainer.ema_network(), scored, case.classes, case.ignore_index, case.device).miou
    return trained - start, settled(case) - trained, miou


def patched(case, name, value):
    """Do the same with something of nasseg's changed."""
    with mock.patch(name, value):
        return as_a_search(case)


def plain(case, mixed):
    """Do the same with a loop as one writes it, without an average of the weights."""
    recipe, device = case.recipe, case.device
    kernels = mock.patch("nasseg.ops.conv.convolve", stock) if device.type == "cpu" else nullcontext()
    network = case.network().to(device).train()
    groups = [{"params": list(network.parameters()), "lr": recipe.learning_rate * recipe.head_multiplier}]
    optimizer = torch.optim.SGD(
        groups, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )
    with kernels:
        start = settled(case)
        for step, batch in enumerate(islice(host_batches(case.train, recipe.batch_size), recipe.steps)):
            factor = recipe.learning_rate_factor(step, recipe.steps)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * recipe.head_multiplier * factor
            inputs, masks = {name: value.to(device) for name, value in batch.inputs.items()}, batch.masks.to(device)
            with autocast(device, mixed):
                logits = next(iter(network.outputs(inputs).values()))
            loss = F.cross_entropy(logits.float(), masks, ignore_index=case.ignore_index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert math.isfinite(loss.item())
        trained = settled(case)
        miou = plain_score(network.eval(), case, mixed)
        return trained - start, settled(case) - trained, miou


@torch.inference_mode()
def plain_score(network, case, mixed):
    classes, confusion = case.classes, 0
    for batch in map(with_image_size, case.val.sequential(8)):
        with autocast(case.device, mixed):
            inputs = {name: value.to(case.device) for name, value in batch.inputs.items()}
            predicted = next(iter(network.outputs(inputs).values())).argmax(1).cpu()
        valid = batch.masks != case.ignore_index
        cells = batch.masks[valid] * classes + predicted[valid]
        confusion = confusion + torch.bincount(cells, minlength=classes**2).view(classes, classes)
    both = confusion.diag(), confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return (both[0] / both[1])[both[1] > 0].mean().item()


def host_batches(cache, batch_size):
    """The same samples as in a search, gathered on the host."""
    return map(with_image_size, cache.batches(batch_size, 0))


def stock(layer, input, padding):
    """Convolve as PyTorch does."""
    return F.conv2d(input, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def frozen(worker, case):
    """Train the same cell on images, each step through the frozen backbone."""
    context, recipe = worker.context, case.recipe
    trainer = Trainer(case.network(), recipe, recipe.steps, case.device, 0, case.ignore_index)
    backbone, _ = worker.proxy.features.prefix
    images = training_batches(context.train, recipe.augment, recipe.batch_size, 0, 0, case.device)

    def features():
        for batch in images:
            with torch.no_grad(), autocast(case.device, recipe.amp):
                outputs = backbone.outputs(batch.inputs)
            masks = sampled(batch.masks, context.plan.label_stride)
            yield with_image_size(Batch({name: value.float() for name, value in outputs.items()}, masks))

    start = settled(case)
    trainer.run(features(), recipe.steps)
    trained = settled(case)
    miou = worker.proxy.score(trainer.ema_network()).miou
    return trained - start, settled(case) - trained, miou


def end_to_end(worker, case, args):
    """Train the whole network on images, and score it on them; the scoring is not told apart."""
    start = settled(case)
    result = worker.run(job(worker, "full", PUBLISHED, args.steps))
    return settled(case) - start, 0.0, result.outcomes[0].miou


def settled(case):
    """The time at which the device has done all that it was given."""
    if case.device.type == "cuda":
        torch.cuda.synchronize(case.device)
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


# --- the device's limit ----------------------------------------------------------------------------------------------


class Moved(TorchDispatchMode):
    """Counts the bytes that operators read and write; views move none."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func._schema.name not in {"aten::detach", "aten::empty_like"}:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


def limit(case):
    """Return the seconds that a step's traffic takes at the speed of a large copy, and its bytes."""
    trainer = Trainer(case.network(), case.recipe, case.recipe.steps, case.device, 0, case.ignore_index)
    batch = with_image_size(next(case.train.batches(case.recipe.batch_size, 0)))
    batch = Batch(to_device(batch.inputs, case.device), batch.masks.to(case.device))
    trainer.run([batch], 1)
    # Kernels of our own, and those of a graph, are no operators of PyTorch's, so nothing would count them.
    kernels = nullcontext() if case.device.type == "cpu" else mock.patch("nasseg.ops.conv.convolve", stock)
    with kernels, mock.patch("nasseg.train.trainer.LEAST_REPLAYS", math.inf), Moved() as moved:
        trainer.run([batch], 2)
    source = torch.ones((256 if case.device.type == "cpu" else 2048) << 20, dtype=torch.uint8, device=case.device)
    copy, times = torch.empty_like(source), []
    for _ in range(10):
        start = settled(case)
        copy.copy_(source)
        times.append(settled(case) - start)
    return moved.bytes / (2 * source.nbytes / statistics.median(times)), moved.bytes


# --- versions, in turns ----------------------------------------------------------------------------------------------

WORKER = """
import json, sys, time
from pathlib import Path

import torch

from nasseg.jobs.worker import Worker
from nasseg.planning.budget import Budget
from nasseg.planning.config import Plan, SearchConfig
from nasseg.planning.job import Job
from nasseg.train.recipes import short

setting, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(setting["threads"])
recipe, first = (
    short(steps=steps, crop=setting["crop"], batch_size=setting["batch"]) for steps in (setting["steps"], 20)
)
plan = Plan(
    image_scale=setting["image_scale"], rungs=(setting["steps"],), full_steps=20, views=4,
    threads=setting["threads"], proxy_recipe=recipe, full_recipe=first,
)
options = {name: setting[name] for name in ("space", "data", "train_split", "val_split", "weights", "device")}
config = SearchConfig(budget=Budget.parse("10trials"), sampler="random", objective="score", plan=plan, **options)
worker = Worker.open(config, folder)
problem = worker.context.problem


clock = time.process_time if setting["device"] == "cpu" and setting["threads"] == 1 else time.perf_counter


def run(task, choice):
    candidate = problem.candidate(problem.space.canonical(problem.space.parse(choice)))
    stop = setting["steps"] if task == "proxy" else 20
    start = clock()
    result = worker.run(Job(number=0, task=task, candidates=(candidate,), seed=0, start_step=0, stop_step=stop))
    return clock() - start, result.outcomes[0].miou


run("prepare", setting["reference"])
run("proxy", setting["reference"])
print(flush=True)
for line in sys.stdin:
    print(json.dumps(run("proxy", json.loads(line))), flush=True)
"""


def versions(args, folder):
    """Run the same cells with each version, one cell a worker at a time, and compare cells per hour and scores."""
    space, rng = DPC(), random.Random(1)
    cells = [ASPP, PUBLISHED, *(space.canonical(space.sample(rng)) for _ in range(args.cells))]
    names = (
        "space",
        "data",
        "train_split",
        "val_split",
        "weights",
        "device",
        "image_scale",
        "steps",
        "batch",
        "threads",
    )
    size = open_dataset(args.data).split(args.val_split)[0].mask.shape
    setting = {name: getattr(args, name) for name in names} | {
        "crop": [max(32, side // 16 * 16) for side in scaled(tuple(size), args.image_scale)],
        "reference": ASPP.model_dump(mode="json"),
    }
    started = [
        [start(checkout, folder / f"{number} {place}", setting) for place in range(args.workers)]
        for number, checkout in enumerate(args.checkouts)
    ]
    taken = {str(checkout): [] for checkout in args.checkouts}
    scores = {str(checkout): {} for checkout in args.checkouts}
    for _ in range(args.repeats):
        for number, cell in enumerate(cells):
            for checkout, workers in zip(taken, started, strict=True):
                told = [ask(worker, cell) for worker in workers]
                found = [json.loads(worker.stdout.readline()) for worker in told]
                taken[checkout].append(statistics.mean(seconds for seconds, _ in found))
                scores[checkout][number] = found[0][1]
    for worker in (worker for workers in started for worker in workers):
        worker.stdin.close()
        worker.wait()
    first, *_ = taken
    ratio = {
        checkout: statistics.median(b / a for b, a in zip(taken[first], seconds, strict=True))
        for checkout, seconds in taken.items()
    }
    print(f"{'version':24}{'s a cell':>10}{'cells / hour':>15}{'times the first':>18}{'mean mIoU':>12}")
    for checkout, seconds in taken.items():
        median, miou = statistics.median(seconds), statistics.mean(scores[checkout].values())
        hour = args.workers * 3600 / median
        print(f"{checkout[-23:]:24}{median:10.2f}{hour:15.0f}{ratio[checkout]:18.2f}{miou:12.3f}")
    return {"seconds": taken, "ratio": ratio, "miou": scores}


def start(checkout, folder, setting):
    """Start a version's worker, and wait until its features are stored."""
    folder.mkdir()
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(setting), str(folder)],
        cwd=checkout.resolve(),
        env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": str(setting["threads"])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout.readline() == "\n", f"the worker of {checkout} has ended"
    return worker


def ask(worker, cell):
    worker.stdin.write(cell.model_dump_json() + "\n")
    worker.stdin.flush()
    return worker


if __name__ == "__main__":
    main()
