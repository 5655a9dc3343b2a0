"""A training step with our depthwise convolutions, and with PyTorch's, on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/depthwise.py

Layers alone, forward and backward, then steps of whole networks at 180×240 in batches of 8. The two take turns, and the
median over the rounds is shown; times are only comparable within a line.
"""

import argparse
import json
import statistics
import time
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
import torch.nn.functional as F

from nasseg import plugins
from nasseg.allocator import keep_freed_memory
from nasseg.data import Batch
from nasseg.ops.conv import conv_layer
from nasseg.train.fit import seeded_network
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer

CPU = torch.device("cpu")
LAYERS = [  # channels, height, width, kernel, stride, rate
    (96, 44, 60, 3, 1, 1),
    (96, 44, 60, 3, 2, 1),
    (144, 33, 45, 5, 1, 1),
    (144, 33, 45, 7, 2, 1),
    (384, 9, 12, 7, 1, 1),
    (384, 9, 12, 7, 1, 2),
    (960, 12, 15, 3, 1, 2),
    (256, 23, 30, 3, 1, 6),
    (256, 23, 30, 3, 1, 18),
]
NETWORKS = ("deeplabv3plus-mobilenetv2", "deeplabv3plus-efficientnet_lite0", "lraspp", "stdc1", "auto_deeplab-s")
BATCH, SIZE, CLASSES = 8, (176, 240), 11


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    args = parser.parse_args()
    keep_freed_memory()
    rows = {}
    for name, step in cases(args.networks):
        times = {"torch": [], "ours": []}
        for _ in range(args.rounds + 1):
            for way, context in (("torch", stock), ("ours", nullcontext)):
                with context():
                    start = time.perf_counter()
                    step()
                    times[way].append(1e3 * (time.perf_counter() - start))
        rows[name] = {way: statistics.median(found[1:]) for way, found in times.items()}
        torch_ms, ours_ms = rows[name].values()
        print(f"{name:48}{torch_ms:9.2f} ms{ours_ms:9.2f} ms{torch_ms / ours_ms:8.2f} times", flush=True)
    print(json.dumps({"benchmark": "depthwise", "threads": torch.get_num_threads(), "ms": rows}))


def cases(networks):
    """Yield the name of each case and what is timed."""
    for dtype in (torch.float32, torch.bfloat16):
        for layer in LAYERS:
            yield f"{str(dtype)[6:]} {'{}×{}×{} kernel {} stride {} rate {}'.format(*layer)}", layer_step(layer, dtype)
    for amp in (False, True):
        for name in networks:
            yield f"{name}{', mixed precision' if amp else ''}", network_step(name, amp)


def layer_step(layer, dtype):
    channels, height, width, kernel, stride, rate = layer
    module = conv_layer(channels, channels, kernel, stride=stride, rate=(rate, rate), groups=channels, bias=False)
    module.to(memory_format=torch.channels_last)
    input = torch.randn(BATCH, channels, height, width).to(memory_format=torch.channels_last).to(dtype)
    input.requires_grad_()

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = module(input)
        output.backward(torch.ones_like(output))

    return step


def network_step(name, amp):
    recipe = short(steps=1000, batch_size=BATCH).model_copy(update={"amp": amp})
    trainer = Trainer(seeded_network(plugins.baseline(name, CLASSES), 0), recipe, recipe.steps, CPU, 0, 255)
    batch = Batch({"image": torch.randn(BATCH, 3, *SIZE)}, torch.randint(0, CLASSES, (BATCH, *SIZE)))
    return lambda: trainer.run(iter([batch]), trainer.step + 1)


@contextmanager
def stock():
    """Convolve as PyTorch does."""

    def convolve(layer, input, padding):
        return F.conv2d(input, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)

    with mock.patch("nasseg.ops.conv.convolve", convolve):
        yield


if __name__ == "__main__":
    main()
