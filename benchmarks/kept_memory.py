"""The gain of keeping freed memory on a CPU: time, page faults and peak memory, with and without it.

    python benchmarks/kept_memory.py

Whether glibc returns memory in every pass differs from one process to the next, so each figure is from several fresh
processes, with and without in turns.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from nasseg import plugins
from nasseg.allocator import keep_freed_memory
from nasseg.cost.inference import inference_form, random_inputs

CPU = torch.device("cpu")
CLASSES = 19
WARMUP, RUNS = 3, 15


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["stdc1", "deeplabv3plus-mobilenetv2"])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "WHAT", "KEPT"), help="measure this here")
    args = parser.parse_args()
    if args.one:
        network, what, kept = args.one
        torch.set_num_threads(args.threads)
        print(json.dumps(measure(network, what, kept == "kept")))
        return
    print(f"{'network':28}{'what':16}{'memory':10}{'ms, by process':44}{'median':>8}{'faults':>9}{'peak MiB':>10}")
    for network in args.networks:
        for what in ("inference", "training step"):
            results = {"given back": [], "kept": []}
            for _ in range(args.processes):
                for kept, found in results.items():
                    command = [sys.executable, __file__, "--threads", str(args.threads), "--one", network, what, kept]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    found.append(json.loads(done.stdout))
            for kept, found in results.items():
                times = [one["ms"] for one in found]
                print(
                    f"{network:28}{what:16}{kept:10}  {', '.join(f'{ms:.1f}' for ms in times):42}"
                    f"{statistics.median(times):8.1f}{statistics.median(one['faults'] for one in found):9.0f}"
                    f"{statistics.median(one['peak_mib'] for one in found):10.0f}",
                    flush=True,
                )


def measure(name, what, kept):
    if kept:
        keep_freed_memory()
    torch.manual_seed(0)
    network = plugins.baseline(name, CLASSES).network()
    run = training_step(network) if what == "training step" else inference(network)
    for _ in range(WARMUP):
        run()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": statistics.median(times),
        "faults": (usage.ru_minflt - faults) / RUNS,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def inference(network):
    inputs = random_inputs([(1, 3, 256, 512)], CPU, torch.float32)
    form = inference_form(network, inputs)

    def run():
        with torch.inference_mode():
            form(*inputs)

    return run


def training_step(network):
    network.train().to(memory_format=torch.channels_last)
    (images,) = random_inputs([(8, 3, 128, 128)], CPU, torch.float32)
    masks = torch.randint(CLASSES, (8, 128, 128))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def run():
        nn.functional.cross_entropy(network(images), masks).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


if __name__ == "__main__":
    main()
