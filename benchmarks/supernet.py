"""The relaxation of Auto-DeepLab: step time and peak memory, against the straightforward implementation.

    python benchmarks/supernet.py --device cuda
    python benchmarks/supernet.py --count

The default is the paper's setting (12 layers, 5 blocks, F = 8, crops of 321×321, batches of 2). The versions build on
each other, and each runs in its own process, for the sake of its peak memory:

    straightforward    a module for each edge and operator, float32, all activations kept
    side by side       all edges out of a state at once, as grouped convolutions; pools once per state
    mixed precision    the same with autocast, if the device is faster with it
    computed again     and with the cells' activations recomputed in the backward pass
    partial channels   and a quarter of the channels put through the operators

The first four compute the same function. A step is a step of the weights: forward, backward, SGD. The whole search is
projected from the step time as if on Cityscapes: 40 epochs over half of 2975 images, and as many updates of α and β in
the last 20. On a CPU, memory is the peak resident set, less that before the first step.

`--count` computes nothing: it counts the memory of a forward and backward pass on PyTorch's meta device: maps, what
autograd keeps, gradients; not the weights and the kernels' buffers. Mixed precision then means bfloat16 throughout.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from nasseg.cost.memory import Allocated
from nasseg.space.relaxation import RelaxationOptions
from nasseg.train.device import autocast, mixed_precision_dtype, place
from nasseg.train.losses import cross_entropy
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.auto_deeplab.mixed_cell import MixedCell, edge
from search_spaces.auto_deeplab.operators import OPERATORS, operator

VERSIONS = {
    "straightforward": {"plain": True, "amp": False},
    "side by side": {"amp": False},
    "mixed precision": {},
    "computed again": {"checkpoint_activations": True},
    "partial channels": {"checkpoint_activations": True, "partial_channels": 4},
}
CITYSCAPES_IMAGES, EPOCHS, ARCHITECTURE_EPOCHS = 2975 // 2, 40, 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--crop", type=int, default=321)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS), choices=VERSIONS)
    parser.add_argument("--count", action="store_true", help="count the memory instead of running")
    parser.add_argument("--one", choices=VERSIONS, help="run this version here, and print its result")
    args = parser.parse_args()
    if args.one:
        print(json.dumps((count if args.count else measure)(args, **VERSIONS[args.one])))
        return

    results = {}
    for name in args.versions:
        done = subprocess.run([sys.executable, *sys.argv, "--one", name], stdout=subprocess.PIPE, text=True)
        last = done.stdout.strip().splitlines()[-1:]
        results[name] = json.loads(last[0]) if done.returncode == 0 else {"failed": done.returncode}
    print(
        f"\n{args.layers} layers, {args.blocks} blocks, F = {args.filters}, {args.crop}×{args.crop}, "
        f"batch {args.batch_size}, {args.device}"
    )
    print(f"{'version':18}{'s / step':>10}{'against first':>15}{'peak GiB':>10}{'40 epochs, hours':>18}")
    first = next(iter(results.values())).get("step_seconds")
    for name, result in results.items():
        if "failed" in result:
            print(f"{name:18}  failed (exit code {result['failed']}: out of memory?)")
            continue
        seconds = result.get("step_seconds")
        print(
            f"{name:18}{shown(seconds, 3):>10}{shown(seconds and first and seconds / first, 2):>15}"
            f"{result['peak_gib']:>10.2f}{shown(result.get('projected_hours'), 1):>18}"
        )
    print(json.dumps({"setting": vars(args), "versions": results}))


def shown(value, digits):
    return "–" if value is None else f"{value:.{digits}f}"


def make(args, plain, options):
    space = AutoDeepLab(layers=args.layers, blocks=args.blocks, filters=args.filters)
    relaxation = space.relaxation(19, RelaxationOptions(**options))
    if plain:
        for name, cell in relaxation.cells.items():
            relaxation.cells[name] = PlainCell(cell)
    return relaxation.train()


def count(args, *, plain=False, amp=True, **options):
    dtype = torch.bfloat16 if amp else torch.float32
    with torch.device("meta"):
        relaxation = make(args, plain, options).to(dtype)
        images = torch.randn(args.batch_size, 3, args.crop, args.crop, dtype=dtype)
        masks = torch.zeros(args.batch_size, args.crop, args.crop, dtype=torch.int64)
        with Allocated() as memory:
            cross_entropy(relaxation(images), masks, 255).backward()
    return {"peak_gib": memory.peak / 2**30}


def measure(args, *, plain=False, amp=True, **options):
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    relaxation = make(args, plain, options)
    place(relaxation, device)
    amp = amp and mixed_precision_dtype(device) is not None
    optimizer = torch.optim.SGD(relaxation.parameters(), lr=0.025, momentum=0.9)
    shape = (args.batch_size, 3, args.crop, args.crop)
    images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(0, 19, (args.batch_size, args.crop, args.crop), device=device)

    def step():
        with autocast(device, amp):
            logits = relaxation(images)
        cross_entropy(logits, masks, 255).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    before = resident_gib()
    step()
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    seconds = (time.perf_counter() - start) / args.steps
    cuda = device.type == "cuda"
    updates = CITYSCAPES_IMAGES / args.batch_size * (EPOCHS + ARCHITECTURE_EPOCHS)
    return {
        "step_seconds": seconds,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else resident_gib() - before,
        "projected_hours": updates * seconds / 3600,
    }


def resident_gib():
    """Return the process's peak resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class PlainCell(nn.Module):
    """A mixed cell written like the equations: a module for every edge and operator, one after the other."""

    def __init__(self, cell: MixedCell):
        super().__init__()
        self.blocks, self.state0, self.state1 = cell.blocks, cell.state0, cell.state1
        channels = cell.active
        self.operators = nn.ModuleList()
        for block in range(self.blocks):
            for state in range(block + 2):
                stride = 2 if cell.strided and state < 2 else 1
                edge_ops = [operator(name, channels, stride) for name in OPERATORS]
                self.operators.append(
                    nn.ModuleList(nn.Sequential(*(op.build([channels]) for op in ops)) for ops in edge_ops)
                )

    def forward(self, previous, before, alpha):
        states = [self.state0(previous), sum(weight * self.state1[name](x) for name, (weight, x) in before.items())]
        for block in range(self.blocks):
            total = 0
            for state in range(block + 2):
                number = edge(block, state)
                for index, module in enumerate(self.operators[number]):
                    total = total + alpha[number, index] * module(states[state])
            states.append(total)
        return torch.cat(states[2:], dim=1)


if __name__ == "__main__":
    main()
