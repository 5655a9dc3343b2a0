"""The gain of cached features: a trial on stored features, with the frozen backbone run every step, and end to end.

    python benchmarks/trial_throughput.py --data folder:PATH --train-split search-train --val-split search-val \
        --weights FILE

All three train the published cell for the same number of steps on crops of the same size, in one process and in turns,
and are scored on the validation split as in a search. The table gives seconds per trial, cells per hour of one worker,
and where the time of a trial on stored features goes.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from baselines.dense_prediction_cell import ASPP, PUBLISHED
from nasseg.data import Augment, Batch, open_dataset, training_batches
from nasseg.jobs.features import sampled
from nasseg.jobs.worker import Worker
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job
from nasseg.planning.machine import Hardware, Speed
from nasseg.planning.options import SearchOptions
from nasseg.planning.plan import derive_plan
from nasseg.train.device import autocast
from nasseg.train.fit import seeded_network
from nasseg.train.trainer import Trainer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="dpc")
    parser.add_argument("--data", default="streets")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--weights")
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        worker = make_worker(args, Path(folder))
        torch.set_num_threads(args.threads)
        prepare(worker, args.steps)
        kinds = {"stored features": cached, "frozen backbone run": frozen, "end to end": end_to_end}
        times = {name: [] for name in kinds}
        for _ in range(args.repeats):
            for name, trial in kinds.items():
                times[name].append(trial(worker, args.steps))

    seconds = {name: statistics.median(sum(parts.values()) for parts in runs) for name, runs in times.items()}
    reference = seconds["stored features"]
    print(f"\n{args.space} on {args.data}, {args.steps} steps, {args.threads} thread(s), {args.device}")
    print(f"{'trial':22}{'s':>8}{'cells / hour':>15}{'against stored':>17}")
    for name, value in seconds.items():
        print(f"{name:22}{value:8.2f}{3600 / value:15.0f}{value / reference:16.2f}×")
    parts = {
        part: statistics.median(run[part] for run in times["stored features"]) for part in times["stored features"][0]
    }
    print("\nwhere a trial on stored features spends its time")
    for part, value in parts.items():
        print(f"  {part:22}{value:8.3f} s{100 * value / reference:7.0f} %")
    setting = {name: getattr(args, name) for name in ("data", "space", "steps", "threads", "device")}
    found = {"torch": torch.__version__, "seconds": seconds, "stored_features_parts_seconds": parts}
    print(json.dumps({"benchmark": "trial_throughput", **setting, **found}))


def make_worker(args, folder):
    """Make a search's worker with the plan for a budget of trials."""
    dataset = open_dataset(args.data)
    train, val = dataset.split(args.train_split), dataset.split(args.val_split)
    speed = Speed(image_scale=1, full_step_seconds=1, proxy_step_seconds=1, forward_seconds=1)
    options = SearchOptions(
        space=args.space,
        data=args.data,
        train_split=args.train_split,
        val_split=args.val_split,
        weights=args.weights,
        budget="10trials",
        device=args.device,
        image_scale=args.image_scale,
        full_steps=args.steps,
        rungs=(args.steps,),
    )
    plan = derive_plan(
        options,
        speed,
        Hardware.of(torch.device(args.device), 1),
        size=tuple(val[0].mask.shape),
        train_images=len(train),
        val_images=len(val),
        references=2,
    )
    return Worker.open(SearchConfig.of(options, plan), folder)


def candidate(worker, cell):
    problem = worker.context.problem
    return problem.candidate(problem.space.canonical(cell))


def prepare(worker, steps):
    """Train the reference and store its features, as the first job of a search does."""
    worker.run(
        Job(number=0, task="prepare", candidates=(candidate(worker, ASPP),), seed=0, start_step=0, stop_step=steps)
    )


def cached(worker, steps):
    """Run the trial as a search does, timing its parts."""
    parts = {}
    tried = candidate(worker, PUBLISHED)
    start = time.perf_counter()
    trainer = make_trainer(worker, tried, steps)
    parts["building"] = time.perf_counter() - start
    batches, reading = worker.proxy.training_batches(0, 0), 0.0
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        reading += time.perf_counter() - start
        start = time.perf_counter()
        trainer.run([batch], trainer.step + 1)
        parts["training"] = parts.get("training", 0.0) + time.perf_counter() - start
    parts["reading features"] = reading
    start = time.perf_counter()
    worker.proxy.score(trainer.ema_network())
    parts["scoring"] = time.perf_counter() - start
    return parts


def make_trainer(worker, tried, steps):
    context = worker.context
    network = seeded_network(worker.proxy.trained_part(context.architecture(tried)), 0)
    return Trainer(
        network, context.plan.proxy_recipe, steps, context.problem.device, 0, context.problem.train.ignore_index
    )


def frozen(worker, steps):
    """Train the same cell on images, each step through the frozen backbone."""
    start = time.perf_counter()
    context = worker.context
    recipe, device = context.plan.proxy_recipe, context.problem.device
    trainer = make_trainer(worker, candidate(worker, PUBLISHED), steps)
    backbone, _ = worker.proxy.features.prefix
    augment = Augment(crop=recipe.crop, scale=recipe.scale, flip=recipe.flip, colour=recipe.colour)
    batches = training_batches(context.train, augment, recipe.batch_size, 0, 0, device)
    for _ in range(steps):
        batch = next(batches)
        with torch.no_grad(), autocast(device, recipe.amp):
            features = backbone.outputs(batch.inputs)
        masks = sampled(batch.masks, context.plan.label_stride)
        inputs = {**{k: v.float() for k, v in features.items()}, "image": torch.zeros(1, 1, *masks.shape[1:])}
        trainer.run([Batch(inputs, masks)], trainer.step + 1)
    worker.proxy.score(trainer.ema_network())
    return {"all": time.perf_counter() - start}


def end_to_end(worker, steps):
    """Train the whole network on images, and score it on them."""
    start = time.perf_counter()
    tried = candidate(worker, PUBLISHED)
    worker.run(Job(number=0, task="full", candidates=(tried,), seed=0, start_step=0, stop_step=steps))
    return {"all": time.perf_counter() - start}


if __name__ == "__main__":
    main()
