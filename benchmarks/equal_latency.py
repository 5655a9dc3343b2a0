"""Whether the space holds better networks than the handcrafted ones at equal latency, and whether a search finds them.

    OMP_NUM_THREADS=1 python benchmarks/equal_latency.py plan --work WORK --data folder:PATH --latency TABLE.json \
        --share 0.5 --share 0.25 --found 0.25=runs/search/best.json
    OMP_NUM_THREADS=1 python benchmarks/equal_latency.py train --work WORK --data folder:PATH --weights FILE
    OMP_NUM_THREADS=1 python benchmarks/equal_latency.py latency --work WORK --data folder:PATH \
        --latency TABLE.json
    python benchmarks/equal_latency.py page --work WORK --picture FILE.png

A band is [0.92, 1] of a latency: that of DeepLabV3+ on MobileNetV2 by the table, times `--share`. `plan` writes the
networks of each band: every handcrafted head on the same pretrained backbone, all widths scaled to the band; as many
random points of the space (`--random`), scaled likewise; and what searches have found (`--found`). It can be repeated
to add networks. `train` trains each with `--seeds` seeds (random points with `--random-seeds`), all by one recipe from
the pretrained weights, and scores it on `--test-split`: one result a file. It passes over what another process trains,
so it runs in any number of processes, at any time, and on other machines: WORK holds no paths.

`latency` measures the handcrafted and the found networks in turns, as the table was, and prints them beside it.

`page` prints, band by band, the gain of the space (the median of the random points minus the best handcrafted head) and
that of the search (found minus the median of the random points). The winner's curse is in the search's own report. With
two seeds of each random point it also tells whether there is a spread: the deviation between points beside that
between seeds. With a search's `trials.csv` as `--trials`, it tells how the search's scores at each rung rank the
networks of the band that it tried beside their means here, of those with several seeds.
"""

import argparse
import csv
import json
import random
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from nasseg import plugins
from nasseg.cost.latency_table import LatencyTable
from nasseg.cost.load import OthersLoad
from nasseg.cost.profile import time_networks
from nasseg.data import evaluation_batches, open_dataset
from nasseg.data.in_memory import InMemory
from nasseg.data.resized import Resized
from nasseg.experiment.trust import pooled_deviation
from nasseg.graph import load, write_atomically
from nasseg.jobs.pricing import Pricing
from nasseg.planning.fitting import Fitting
from nasseg.planning.limits import Limits
from nasseg.planning.plan import search_crop
from nasseg.plugins import space as find_space
from nasseg.rank_correlation import kendall, spearman
from nasseg.report.figures.figure import new_figure, save
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.recipes import recipe
from nasseg.train.weights.loading import load_pretrained

CPU = torch.device("cpu")
HANDCRAFTED, RANDOM, FOUND = "handcrafted", "random", "found"
COLOURS = {HANDCRAFTED: "tab:gray", RANDOM: "tab:blue", FOUND: "tab:red"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    plan_parser = commands.add_parser("plan")
    plan_parser.add_argument("--train-split", default="train+val")
    plan_parser.add_argument("--test-split", default="test")
    plan_parser.add_argument("--image-scale", type=float, default=0.5)
    plan_parser.add_argument("--space", default="encoder_decoder")
    plan_parser.add_argument("--latency", required=True, help="table for images of the scaled size")
    plan_parser.add_argument("--share", type=float, action="append", required=True)
    plan_parser.add_argument("--recipe", default="short")
    plan_parser.add_argument("--steps", type=int, default=1500)
    plan_parser.add_argument("--batch-size", type=int, default=8)
    plan_parser.add_argument("--seeds", type=int, default=3)
    plan_parser.add_argument("--random", type=int, default=5)
    plan_parser.add_argument("--random-seeds", type=int, default=1)
    plan_parser.add_argument("--found", action="append", default=[], metavar="SHARE=FILE")
    train_parser = commands.add_parser("train")
    train_parser.add_argument("--weights", required=True)
    train_parser.add_argument("--only", action="append", help="part of the names of the networks to train now")
    latency_parser = commands.add_parser("latency")
    latency_parser.add_argument("--latency", required=True, help="the table that the networks were planned with")
    latency_parser.add_argument("--minutes", type=float, default=1.0)
    page_parser = commands.add_parser("page")
    page_parser.add_argument("--picture", type=Path)
    page_parser.add_argument("--trials", action="append", default=[], metavar="BAND=FILE")
    for command in (plan_parser, train_parser, latency_parser):
        command.add_argument("--data", required=True)
    for command in (plan_parser, train_parser, latency_parser, page_parser):
        command.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    {"plan": plan, "train": train, "latency": latency, "page": page}[args.command](args)


def plan(args):
    """Write the networks of every band, and the settings of their trainings."""
    settings = {
        name: getattr(args, name)
        for name in ("train_split", "test_split", "image_scale", "space", "recipe", "steps", "batch_size")
    }
    file = args.work / "plan.json"
    known = json.loads(file.read_text()) if file.exists() else {"settings": settings, "networks": {}}
    if known["settings"] != settings:
        raise SystemExit(f"{file} has other settings; give the same, or another --work")
    args.work.mkdir(parents=True, exist_ok=True)
    classes, table = len(open_dataset(args.data).classes), LatencyTable.load(args.latency)
    space = find_space(args.space)
    full_ms = table.latency_ms(plugins.baseline("deeplabv3plus-mobilenetv2", classes))

    def add(band, group, name, choice, seeds):
        name, architecture = f"{band}-{group}-{name}", space.architecture(choice, classes)
        known["networks"][name] = {
            "band": band,
            "group": group,
            "seeds": seeds,
            "predicted_ms": table.latency_ms(architecture),
            "params": architecture.describe(table.conditions.size).params,
            "key": architecture.key,
            "choice": choice.model_dump(mode="json"),
        }
        row = known["networks"][name]
        print(f"{name:48}{row['predicted_ms']:8.2f} ms {row['params'] / 1e6:7.3f} M", flush=True)

    def constraints(pricing, choice):
        return pricing.constraints(space.architecture(choice, classes))

    for share in args.share:
        pricing = Pricing(table.conditions.size, Limits(latency_ms=share * full_ms), table)
        fitting = Fitting(space, partial(constraints, pricing))
        if args.seeds:
            for label, choice in fitting.references().items():
                add(f"{share:g}", HANDCRAFTED, label, choice, args.seeds)
        for number in range(args.random):
            fitted = fitting.draw(random.Random(f"{share}/{number}"))
            add(f"{share:g}", RANDOM, str(number), fitted.choice, args.random_seeds)
    for found in args.found:
        share, path = found.split("=", 1)
        add(share, FOUND, Path(path).parent.name, space.parse(load(path).choice), args.seeds)
    write_atomically(file, json.dumps(known, indent=1))


def train(args):
    """Train what has no result yet and is not being trained, one after another."""
    torch.set_num_threads(1)
    known = json.loads((args.work / "plan.json").read_text())
    settings = known["settings"]
    (args.work / "results").mkdir(exist_ok=True)
    dataset = open_dataset(args.data)
    scale = settings["image_scale"]
    splits = [InMemory(Resized(dataset.split(settings[name]), scale)) for name in ("train_split", "test_split")]
    networks = known["networks"]
    now = [name for name in networks if not args.only or any(part in name for part in args.only)]
    jobs = [(seed, name) for name in now for seed in range(networks[name]["seeds"])]
    for seed, name in sorted(jobs, key=lambda job: (job[0], list(networks).index(job[1]))):
        result = args.work / "results" / f"{name}-{seed}.json"
        if result.exists():
            continue
        try:
            with FileLock(result.with_suffix(".lock"), timeout=0):
                if not result.exists():
                    outcome = trained(args, settings, dataset, splits, name, networks[name], seed)
                    write_atomically(result, json.dumps({"name": name, "seed": seed, **outcome}))
                    print(f"{name} seed {seed}: {outcome['miou']:.4f} in {outcome['seconds']:.0f} s", flush=True)
        except Timeout:
            continue


def trained(args, settings, dataset, splits, name, row, seed):
    """Train one network with one seed, from its checkpoint if there is one, and score it."""
    space = find_space(settings["space"])
    architecture = space.architecture(space.parse(row["choice"]), len(dataset.classes))
    if architecture.key != row["key"]:
        raise SystemExit(f"{name} is another network by now; plan it again in another --work")
    start = time.perf_counter()
    train_split, test_split = splits
    made = recipe(
        settings["recipe"],
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        crop=search_crop(dataset.split(settings["train_split"]).typical_size(), settings["image_scale"]),
    )
    network = seeded_network(architecture, seed)
    load_pretrained(network, args.weights)
    checkpoint = args.work / "results" / f"{name}-{seed}.pt"
    trainer, log = fit(network, made, train_split, device=CPU, seed=seed, checkpoint=checkpoint)
    batches = (batch for batch, _ in evaluation_batches(test_split, made.batch_size, CPU))
    network, classes = trainer.ema_network(), len(dataset.classes)
    metrics = evaluate(network, batches, classes, dataset.ignore_index, CPU, boundary=True)
    checkpoint.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    return {"status": log.status, "miou": metrics.miou, "boundary_miou": metrics.boundary_miou, "seconds": seconds}


def latency(args):
    """Measure the networks that are compared, in turns."""
    known, table = json.loads((args.work / "plan.json").read_text()), LatencyTable.load(args.latency)
    torch.set_num_threads(table.conditions.threads)
    space, classes = find_space(known["settings"]["space"]), len(open_dataset(args.data).classes)
    rows = {name: row for name, row in known["networks"].items() if row["group"] != RANDOM}
    networks = [space.architecture(space.parse(row["choice"]), classes) for row in rows.values()]
    others = OthersLoad(CPU)
    measured = dict(zip(rows, time_networks(networks, table.conditions, CPU, 60 * args.minutes), strict=True))
    for name, ms in sorted(measured.items(), key=lambda one: one[1]):
        print(f"{name:48}{ms:8.2f} ms, by the table {rows[name]['predicted_ms']:.2f} ms")
    print(json.dumps({"benchmark": "equal_latency latency", "ms": measured, "others_share": others.share}))


def page(args):
    """Print the table of each band, and the gains."""
    known = json.loads((args.work / "plan.json").read_text())
    runs = [json.loads(file.read_text()) for file in sorted((args.work / "results").glob("*.json"))]
    results = [known["networks"][run["name"]] | run for run in runs]
    if args.picture:
        draw(results, args.picture)
    summary = {band: of_band(band, results) for band in sorted({row["band"] for row in known["networks"].values()})}
    for trials in args.trials:
        band, file = trials.split("=", 1)
        summary[band].setdefault("ranked", {})[file] = ranked(Path(file), [r for r in results if r["band"] == band])
    print(json.dumps({"benchmark": "equal_latency", **known["settings"], "bands": summary}))


def of_band(band, results):
    """Print and return what a band says."""
    groups = {}
    for result in results:
        if result["band"] == band:
            groups.setdefault(result["group"], {}).setdefault(result["name"], []).append(result)
    print(f"\nband {band} of DeepLabV3+\n{'':48}{'ms':>8}{'M':>8}{'mIoU':>9}{'±':>8}{'boundary':>10}{'seeds':>7}")
    means = {group: {name: mean(runs, "miou") for name, runs in networks.items()} for group, networks in groups.items()}
    for group, networks in groups.items():
        for name in sorted(networks, key=lambda name: -means[group][name]):
            runs, scores = networks[name], [run["miou"] for run in networks[name]]
            spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
            print(
                f"{name:48}{runs[0]['predicted_ms']:8.2f}{runs[0]['params'] / 1e6:8.3f}{means[group][name]:9.4f}"
                f"{spread:8.4f}{mean(runs, 'boundary_miou'):10.4f}{len(runs):7}"
            )
    every = [[run["miou"] for run in runs] for networks in groups.values() for runs in networks.values()]
    found = {"networks": means, "seed_deviation": pooled_deviation(every)}
    if RANDOM in means:
        points = list(means[RANDOM].values())
        found |= {"random_median": statistics.median(points)}
        if len(points) > 1:
            found |= {"random_deviation": statistics.stdev(points)}
        if HANDCRAFTED in means:
            found |= {"space_gain": found["random_median"] - max(means[HANDCRAFTED].values())}
        if FOUND in means:
            found |= {"search_gain": max(means[FOUND].values()) - found["random_median"]}
    print({name: round(value, 4) for name, value in found.items() if isinstance(value, float)})
    return found


def ranked(file, results):
    """Print and return how the scores of a search at each rung rank the networks that have several seeds here."""
    runs, found = {}, {}
    for result in results:
        runs.setdefault(result["key"], []).append(result["miou"])
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if len(runs.get(row["key"], [])) > 1]
    for rung in (name for name in rows[0] if name.startswith("proxy_miou_step_")):
        reached = [row for row in rows if row[rung]]
        scores, means = [float(row[rung]) for row in reached], [statistics.mean(runs[row["key"]]) for row in reached]
        found[rung] = {"networks": len(reached), "spearman": spearman(scores, means), "kendall": kendall(scores, means)}
        print(f"{file} {rung}: {found[rung]}")
    print(f"the means deviate by {statistics.stdev(statistics.mean(runs[row['key']]) for row in rows):.4f}")
    return found


def draw(results, path):
    """Draw each network's mIoU, a dot a seed and a bar for the mean, band by band, the best on top."""
    bands = sorted({result["band"] for result in results}, key=float)
    rows = {}
    for result in results:
        rows.setdefault((result["band"], result["name"]), []).append(result)
    figure = new_figure(7, 0.6 + 0.28 * len(rows))
    places = [sum(band == of for of, _ in rows) for band in bands]
    for axes, band in zip(
        figure.subplots(len(bands), 1, squeeze=False, height_ratios=places)[:, 0], bands, strict=True
    ):
        named = sorted((mean(runs, "miou"), name) for (of, name), runs in rows.items() if of == band)
        for place, (average, name) in enumerate(named):
            runs = rows[band, name]
            colour = COLOURS[runs[0]["group"]]
            axes.plot([run["miou"] for run in runs], [place] * len(runs), "o", color=colour, markersize=4, alpha=0.6)
            axes.plot([average], [place], "|", color=colour, markersize=14, markeredgewidth=2)
        labels = [name.removeprefix(f"{band}-").replace("-scaled", "").replace("-", " ", 1) for _, name in named]
        axes.set_yticks(range(len(named)), labels)
        axes.set_title(f"{band} of DeepLabV3+'s latency on MobileNetV2", fontsize=9)
        axes.set_xlabel("test mIoU, one dot a seed")
        axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    save(figure, path)


def mean(runs, field):
    return statistics.mean(float("nan") if run[field] is None else run[field] for run in runs)


if __name__ == "__main__":
    main()
