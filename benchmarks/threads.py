"""A training step, and a pass in inference, beside other programs: one thread, all cores as torch does it, and as ours.

    python benchmarks/threads.py

Every figure is a fresh process's mean, whose first step is not counted; those that are compared take turns, and the
median over the rounds is shown. `idle` is beside nothing, `busy loop` beside a loop of plain Python, `training` beside
a training with one thread, `training as torch does it` beside one with all cores, and `training of ours` beside one as
ours. `ours` has a thread a core, as a run that was there before the others; `chosen` has as many as
`nasseg.threads.choose_threads` finds free at its start. `others` is how many cores other programs used: measure again
if that is not near 0 when idle. Gradients are alike if those of all cores' threads are, to the last bit, in all rows.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

NETWORKS = {"deeplabv3plus-mobilenetv2": (4, (64, 96)), "deeplabv3plus-resnet50": (4, (128, 192))}
CLASSES = 11
WAYS = ("one thread", "torch", "passive", "ours", "chosen")
BESIDE = {
    "idle": None,
    "busy loop": "loop",
    "training": "one thread",
    "training as torch does it": "torch",
    "training of ours": "ours",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--what", nargs="+", default=["training", "inference"], choices=["training", "inference"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--beside", nargs="+", default=list(BESIDE), choices=list(BESIDE))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each process measures")
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "WHAT", "WAY"), help="measure this here")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.seconds)))
        return
    results = []
    for network in args.networks:
        for what in args.what:
            print(f"\n{network}, {what}, ms\n{'beside':28}" + "".join(f"{way:>12}" for way in args.ways), flush=True)
            for beside in args.beside:
                found = {way: [] for way in args.ways}
                with other(network, BESIDE[beside]):
                    for _ in range(args.rounds):
                        for way in args.ways:
                            found[way].append(run(network, what, way, args.seconds))
                ms = {way: statistics.median(one["ms"] for one in of_way) for way, of_way in found.items()}
                load = max(one["others"] for of_way in found.values() for one in of_way)
                print(
                    f"{beside:28}" + "".join(f"{ms[way]:12.1f}" for way in args.ways) + f"   others {load:.2f}",
                    flush=True,
                )
                results += [
                    {
                        "network": network,
                        "what": what,
                        "beside": beside,
                        "way": way,
                        "median_ms": ms[way],
                        "processes": found[way],
                    }
                    for way in args.ways
                ]
    hashes = {
        (result["network"], one["gradient"])
        for result in results
        for one in result["processes"]
        if one["gradient"] and one["threads"] == os.cpu_count()
    }
    alike = len(hashes) == len({network for network, _ in hashes})
    print(f"\ngradients with {os.cpu_count()} threads alike: {alike}")
    import torch

    print(
        json.dumps(
            {
                "device": "cpu",
                "cores": os.cpu_count(),
                "torch": torch.__version__,
                "classes": CLASSES,
                "sizes": {name: NETWORKS[name] for name in args.networks},
                "seconds": args.seconds,
                "gradients_alike": alike,
                "results": results,
            }
        )
    )


def command(network, what, way, seconds):
    return [sys.executable, __file__, "--one", network, what, way, "--seconds", str(seconds)]


def environment(way):
    """How libgomp waits: as it does itself, or as ours."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    own = {"torch": {"GOMP_SPINCOUNT": "300000"}, "passive": {"OMP_WAIT_POLICY": "passive"}}
    return {**clean, **own.get(way, {})}


def run(network, what, way, seconds):
    done = subprocess.run(
        command(network, what, way, seconds), env=environment(way), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@contextmanager
def other(network, way):
    """Something else that uses the machine, until the block ends."""
    if way is None:
        yield
        return
    loop = [sys.executable, "-c", "while True: pass"]
    started = loop if way == "loop" else command(network, "training", way, 1e6)
    process = subprocess.Popen(started, env=environment(way), stdout=subprocess.DEVNULL)
    time.sleep(5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(name, what, way, seconds):
    import nasseg  # noqa: F401 - before torch, as its import says how threads wait

    # isort: split
    import torch

    from nasseg import plugins
    from nasseg.cost.load import OthersLoad
    from nasseg.threads import sharing_cores
    from nasseg.train.device import place, threads_for

    cpu = torch.device("cpu")
    if way in ("one thread", "chosen"):
        torch.set_num_threads(1 if way == "one thread" else threads_for(cpu))
    torch.manual_seed(0)
    network = plugins.baseline(name, CLASSES).network()
    place(network, cpu)
    batch, size = NETWORKS[name]
    images = torch.randn(batch, 3, *size).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(CLASSES, (batch, *size))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    dropout = [module for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    network.train(what == "training")
    for module in dropout:
        module.eval()

    def training():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), masks).backward()
        optimizer.step()

    @torch.inference_mode()
    def inference():
        network(images)

    step = training if what == "training" else inference
    gathers = sharing_cores(torch.get_num_threads() if way in ("ours", "chosen") else 1)
    times = []
    with gathers as look:
        step()
        look()
        load, begin = OthersLoad(cpu), time.perf_counter()
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            step()
            look()
            times.append((time.perf_counter() - start) * 1000)
        share = load.share
    gradient = hashlib.sha256()
    for parameter in network.parameters():
        if what == "training":
            gradient.update(parameter.grad.numpy().tobytes())
    return {
        "ms": statistics.mean(times),
        "median_ms": statistics.median(times),
        "max_ms": max(times),
        "steps": len(times),
        "threads": torch.get_num_threads(),
        "others": share * os.cpu_count(),
        "gradient": gradient.hexdigest()[:16] if what == "training" else None,
    }


if __name__ == "__main__":
    main()
