"""Everything about speed that waits for a GPU, one after the other, shortest first.

    python benchmarks/on_gpu.py --work runs/on-gpu

Each step's output is in a file of its own, with its command. One that has ended well is not run again, so that the same
command goes on where another stopped; one that takes longer than its time is left, and the next begins: all take
eighteen minutes at most. `--device cpu` rehearses them with little to do.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def steps(on_gpu, work):
    """Yield each step's name, command and most seconds."""
    device = ["--device", "cuda" if on_gpu else "cpu"]
    python, benchmarks = [sys.executable], REPOSITORY / "benchmarks"

    def benchmark(name, *options):
        return [*python, benchmarks / f"{name}.py", *options]

    steps = "200" if on_gpu else "2"
    images = "512" if on_gpu else "16"
    networks = "deeplabv3plus-mobilenetv2" if on_gpu else "lraspp"
    yield "tests", [*python, "-m", "pytest", "-q", "-m", "gpu", REPOSITORY / "tests"], 120
    yield "depthwise", benchmark("depthwise", "--rounds", "3", "--networks", networks, *device), 90
    trial = ("--features", "320x49x49", "--classes", "21", "--images", images, "--steps", steps, "--repeats", "2")
    yield "trial_throughput", benchmark("trial_throughput", *trial, *device), 150
    yield "job_memory", benchmark("job_memory", *device), 90
    supernet = () if on_gpu else ("--layers", "4", "--blocks", "2", "--filters", "4", "--crop", "65", "--steps", "1")
    yield "supernet", benchmark("supernet", *supernet, *device), 120
    size = "512x1024" if on_gpu else "64x128"
    latency = ("--space", "dpc", "--size", size, "--minutes", "1" if on_gpu else "0.1", "--networks", "20")
    yield "latency_predictor", benchmark("latency_predictor", *latency, *device), 240
    search = ("search", "--target-latency", "5ms", "--budget", "3min", "--runner", "in-process")
    yield "search", [*python, "-m", "nasseg", *search, "--out", work / "searched", *device], 270


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--only", nargs="*", help="names of steps")
    args = parser.parse_args()
    on_gpu, work = args.device == "cuda", args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, command, seconds in steps(on_gpu, work):
        done = work / f"{name}.txt"
        if done.exists() or (args.only and name not in args.only):
            continue
        unfinished, start = work / f"{name}.unfinished.txt", time.monotonic()
        with unfinished.open("w") as file:
            print("$", *command, file=file, flush=True)
            try:
                code = subprocess.run(
                    [*map(str, command)],
                    cwd=REPOSITORY,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=seconds if on_gpu else 4 * seconds,
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
        said = "took too long" if code is None else f"exit code {code}"
        print(f"{name}: {said}, {time.monotonic() - start:.0f} s", flush=True)
        if code == 0:
            unfinished.rename(done)


if __name__ == "__main__":
    main()
