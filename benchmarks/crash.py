"""Whether a search loses or repeats anything, whatever is killed, and how exactly its time is charged.

    OMP_NUM_THREADS=1 python benchmarks/crash.py --work WORK --kills 60 --data folder:PATH --weights FILE \
        -- --space dpc --budget 12trials --rungs 30,60 --full-steps 30
    OMP_NUM_THREADS=1 python benchmarks/crash.py --work WORK --kills 40 --budget 20min …

One search runs undisturbed, another with the same options, one worker each, is killed at random moments: the driver, a
worker, Ray's raylet or its server (gcs), all at once, or all at once with a loss of power, after which of every file in
the run folder only what was synced is certain: the rest is cut off at a random byte. It is then resumed, until it ends
by itself after `--kills` kills. After every kill the record is read: each finished job must still be there, unchanged,
and `best.json` must be whole. At the end, no job may have been finished twice, and all results must be those of the
undisturbed search. Each kill is a line of WORK/kills.jsonl; called again, the benchmark goes on.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from nasseg.experiment.experiment import Experiment
from nasseg.experiment.stopwatch import Stopwatch
from nasseg.graph import load
from nasseg.run_folder import SPENT_FILE

VICTIMS = ("driver", "worker", "raylet", "gcs", "everything", "power")
NOTING_SYNCS = """
import os
_sync, _log = os.fsync, os.environ.get("NASSEG_SYNCED")
def fsync(handle):
    _sync(handle)
    file = os.fstat(handle if isinstance(handle, int) else handle.fileno())
    with open(_log, "a") as log:
        log.write(f"{file.st_ino} {file.st_size}\\n")
if _log:
    os.fsync = fsync
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest-seconds", type=float, default=20, help="between a search's start and its kill")
    parser.add_argument("--runner", default="ray", choices=("ray", "in-process"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="of nasseg search, after --")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    site = args.work / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(NOTING_SYNCS)

    undisturbed, killed = args.work / "undisturbed", args.work / "killed"
    if not (undisturbed / "report.html").exists():
        search(args, undisturbed).wait()
    expected = finished(undisturbed)
    log = args.work / "kills.jsonl"
    kills = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = finished(killed) if (killed / "config.yaml").exists() else {}
    while len(kills) < args.kills:
        rng = random.Random(f"{args.seed}/{len(kills)}")
        kill = kill_once(args, killed, rng, known)
        known = kill.pop("known")
        kills.append(kill)
        with log.open("a") as file:
            file.write(json.dumps(kill) + "\n")
        print(kill, flush=True)
        if kill["ended"]:
            break
    while search(args, killed).wait() != 0:
        print("the last resumption failed; once more", flush=True)
    results = finished(killed)
    found = {
        "benchmark": "crash",
        "options": args.options,
        "kills": Counter(kill["victim"] for kill in kills),
        "lost": sum(kill["lost"] for kill in kills),
        "broken_best": sum(not kill["best_is_whole"] for kill in kills),
        "finished_twice": finished_twice(killed),
        "jobs": len(results),
        "results_that_differ": sum(results.get(name) != outcome for name, outcome in expected.items()),
        "held_seconds": sum(kill["held"] for kill in kills),
        "charged_seconds": sum(kill["charged"] for kill in kills),
        "unnoted_seconds_a_kill": [f([kill["unnoted"] for kill in kills]) for f in (statistics.median, max)],
    }
    print(json.dumps(found))


def search(args, folder):
    """Start a search in `folder`, or go on with it."""
    again = (folder / "config.yaml").exists()
    options = ["--resume"] if again else [*args.options, "--runner", args.runner, "--concurrency", "1"]
    paths = [str(args.work / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NASSEG_SYNCED": str(args.work / "synced")}
    with (args.work / f"{folder.name}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "nasseg", "search", *options, "--out", str(folder)],
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_once(args, folder, rng, known):
    """Run the search until a random moment, kill something, and see what is left."""
    victim = rng.choice(VICTIMS if args.runner == "ray" else ("driver", "power"))
    before = charged_seconds(folder)
    (args.work / "synced").write_text("")
    began = time.time()
    process = search(args, folder)
    while process.poll() is None and not (folder / ".owner").exists():
        time.sleep(0.02)
    start = time.monotonic()
    while process.poll() is None and not targets(process, victim):
        time.sleep(0.02)
    time.sleep(rng.uniform(0, args.longest_seconds))
    ended = process.poll() is not None
    unnoted = 0.0
    if not ended:
        if (folder / SPENT_FILE).exists():
            unnoted = max(0.0, time.time() - max(began, (folder / SPENT_FILE).stat().st_mtime))
        for target in targets(process, victim):
            with suppress(psutil.NoSuchProcess):
                target.kill()
        if victim == "worker":  # the search goes on without it
            time.sleep(rng.uniform(0, args.longest_seconds))
            ended = process.poll() is not None
        if victim in ("driver", "worker"):
            process.kill()
        process.wait(timeout=300)
    held = time.monotonic() - start
    leave_nothing_running(folder)
    if victim == "power":
        lose_power(folder, args.work / "synced", began, rng)
    now = finished(folder) if (folder / "config.yaml").exists() else {}
    best = folder / "best.json"
    return {
        "victim": victim,
        "ended": ended and process.returncode == 0,
        "exit_code": process.returncode,
        "finished": len(now),
        "lost": sum(now.get(name) != outcome for name, outcome in known.items()),
        "best_is_whole": not best.exists() or load(best) is not None,
        "held": held,
        "charged": charged_seconds(folder) - before,
        "unnoted": unnoted,
        "known": now,
    }


def targets(process, victim):
    """The processes that a kill hits: none as long as there is no such process yet."""
    try:
        driver = psutil.Process(process.pid)
        below = driver.children(recursive=True)
        names = {child: " ".join(child.cmdline()) for child in below if child.is_running()}
    except psutil.NoSuchProcess:
        return []
    if victim == "driver":
        return [driver]
    if victim in ("everything", "power"):
        return [driver, *below]
    if victim == "worker":
        return [child for child, name in names.items() if name.startswith("ray::") and "Agent" not in name]
    return [child for child, name in names.items() if f"/{'gcs_server' if victim == 'gcs' else victim} " in name]


def leave_nothing_running(folder):
    """Wait until no process of a killed search runs any more, and end what does after a minute."""
    end = time.monotonic() + 60
    while running := [p for p in psutil.process_iter(["environ"]) if belongs(p, folder)]:
        if time.monotonic() > end:
            for process in running:
                process.send_signal(signal.SIGKILL)
        time.sleep(0.2)


def belongs(process, folder):
    try:
        return process.info["environ"] and process.info["environ"].get("NASSEG_SYNCED") == str(folder.parent / "synced")
    except psutil.Error:
        return False


def lose_power(folder, synced, began, rng):
    """Cut off what was not synced of each file that was written since the run began."""
    sizes = {}
    for line in synced.read_text().splitlines():
        inode, size = map(int, line.split())
        sizes[inode] = size
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= began:
            size, safe = path.stat().st_size, sizes.get(path.stat().st_ino, 0)
            os.truncate(path, rng.randint(min(safe, size), size))


def finished(folder):
    """The outcome of every finished job, by its name."""
    outcomes = {}
    for trial in Experiment.open(folder).planner.trials:
        for kind in ("proxy", "full"):
            for number, outcome in getattr(trial, kind).items():
                outcomes[f"{trial.key} {kind} {number}"] = outcome.model_dump(mode="json")
    return outcomes


def finished_twice(folder):
    """The jobs whose results the journal has more than once."""
    results = Counter()
    for line in (folder / "study.journal").read_text().splitlines():
        entry = json.loads(line)
        for name in entry.get("user_attr", {}):
            if name.startswith(("step ", "full ")):
                results[entry.get("trial_id"), name] += 1
    return sum(count - 1 for count in results.values())


def charged_seconds(folder):
    return Stopwatch(folder).seconds


if __name__ == "__main__":
    main()
