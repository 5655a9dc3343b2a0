"""Compare two versions of nasseg: do the same searches try the same networks, with the same scores?

    git worktree add ../before COMMIT
    python benchmarks/same_trials.py ../before . --out same_trials

Each search runs in its own process, its jobs one after the other, on small street scenes. Searches already in `--out`
are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

DPC = "dpc:filters=16"
AUTO_DEEPLAB = "auto_deeplab:layers=4,blocks=2,filters=4,stem_filters=8,head_filters=16,decoder=false"
TRIALS = ["--budget", "12trials", "--rungs", "2,4"]
GRADIENT = [
    *("--budget", "8trials", "--rungs", "2,4"),
    *("--strategy", "gradient", "--relax-steps", "6", "--relaxations", "2"),
]
SEARCHES = {
    "dpc": ["--space", DPC, *TRIALS],
    "dpc within a limit": ["--space", DPC, *TRIALS, "--max-params", "1.93M"],
    "auto_deeplab": ["--space", AUTO_DEEPLAB, *TRIALS],
    "auto_deeplab within a limit": ["--space", AUTO_DEEPLAB, *TRIALS, "--max-params", "45K"],
    "auto_deeplab by gradient": ["--space", AUTO_DEEPLAB, *GRADIENT],
    "auto_deeplab by gradient within a limit": ["--space", AUTO_DEEPLAB, *GRADIENT, "--max-params", "45K"],
}
"""Options of each search by its name."""
COMMON = [
    *("--data", "streets:size=64x96,train=16,val=4,test=4", "--full-steps", "4", "--finalists", "1", "--seeds", "2"),
    *("--image-scale", "1", "--runner", "in-process", "--device", "cpu"),
]
SEEDS = (0, 1, 2)
CLOCKED = {"latency_ms"}
"""Columns that are measured with a clock."""


def main() -> None:
    """Run all searches of both versions and print where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--out", type=Path, default=Path("same_trials"), help="folder for the runs")
    parser.add_argument("--sampler", help="in place of each strategy's own")
    arguments = parser.parse_args()
    extra = ["--sampler", arguments.sampler] if arguments.sampler else []
    results = []
    for name, options in SEARCHES.items():
        for seed in SEEDS:
            before, after = (
                trials(checkout.resolve(), arguments.out / side / f"{name}, seed {seed}", [*options, *extra], seed)
                for side, checkout in (("before", arguments.before), ("after", arguments.after))
            )
            found = differences(before, after)
            shared, other = shared_networks(before, after)
            results.append(
                {"search": name, "seed": seed, "differences": found, "tried by both": shared, "other scores": other}
            )
            print(
                f"{name}, seed {seed}: {len(before)} and {len(after)} trials, {len(found)} differ in their order; of "
                f"{shared} networks tried by both, {other} score differently",
                *found[:3],
            )
    print(json.dumps(results))


def trials(checkout: Path, folder: Path, options: list[str], seed: int) -> list[dict[str, str]]:
    """Run a search unless it was run before; returns the rows of its trials.csv, without clocked columns."""
    if not (folder / "trials.csv").exists():
        command = [sys.executable, "-c", "from nasseg.cli import main; main()", "search", *options, *COMMON]
        subprocess.run(
            [*command, "--seed", str(seed), "--out", str(folder.resolve())],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    with (folder / "trials.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in CLOCKED} for row in csv.DictReader(file)]


def shared_networks(before: list[dict[str, str]], after: list[dict[str, str]]) -> tuple[int, int]:
    """How many networks both versions tried, and how many of these have another score at a step that both reached.

    The order in which a sampler draws may change; what a network scores must not, unless it inherits weights.
    """
    old = {row["key"]: row for row in before}
    pairs = [(old[row["key"]], row) for row in after if row["key"] in old]
    other = [
        name
        for one, two in pairs
        for name in one
        if name.startswith("proxy_miou") and one[name] and two[name] and one[name] != two[name]
    ]
    return len(pairs), len(other)


def differences(before: list[dict[str, str]], after: list[dict[str, str]]) -> list[str]:
    """Describe each trial that differs in a line."""
    lines = [] if len(before) == len(after) else [f"{len(before)} trials became {len(after)}"]
    for number, (old, new) in enumerate(zip(before, after, strict=False)):
        changed = [name for name in old if old[name] != new.get(name)]
        if changed:
            lines.append(f"trial {number}: {', '.join(f'{name} {old[name]} → {new.get(name)}' for name in changed)}")
    return lines


if __name__ == "__main__":
    main()
