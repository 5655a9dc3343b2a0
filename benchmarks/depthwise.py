"""A training step with our depthwise convolutions, and with PyTorch's, on a CPU; inference, too.

    OMP_NUM_THREADS=1 python benchmarks/depthwise.py

Layers in inference on one image, layers alone, forward and backward, then steps of whole networks at 180×240 in batches
of 8 (`--networks` without names for none). The two take turns, and the median over the rounds is shown; times are only
comparable within a line.
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
from nasseg.ops.base import as_pair
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
IN_INFERENCE = [
    (960, 12, 15, 5, 1, 4),
    (960, 12, 15, 7, 1, 4),
    (576, 23, 30, 7, 1, 3),
    (576, 23, 30, 7, 1, 6),
    (256, 23, 30, 3, 1, 18),
    (136, 46, 60, 7, 1, 4),
    (960, 12, 15, 7, 1, 2),
    (256, 23, 30, 3, 1, (1, 6)),
    (256, 23, 30, 3, 1, (12, 1)),
]
NETWORKS = ("deeplabv3plus-mobilenetv2", "deeplabv3plus-efficientnet_lite0", "lraspp", "stdc1", "auto_deeplab-s")
BATCH, SIZE, CLASSES = 8, (176, 240), 11


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
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
        for layers, made in ((IN_INFERENCE, layer_pass), (LAYERS, layer_step)):
            for layer in layers:
                named = "{}×{}×{} kernel {} stride {} rate {}".format(*layer)
                yield f"{str(dtype)[6:]} {named}{' in inference' * (made is layer_pass)}", made(layer, dtype)
    for amp in (False, True):
        for name in networks:
            yield f"{name}{', mixed precision' if amp else ''}", network_step(name, amp)


def layer_pass(layer, dtype):
    module, input = module_of(layer), images_of(layer, 1).to(dtype)
    module.eval().to(dtype)

    def step():
        with torch.inference_mode():
            module(input)

    return step


def module_of(layer):
    channels, _, _, kernel, stride, rate = layer
    module = conv_layer(channels, channels, kernel, stride=stride, rate=as_pair(rate), groups=channels, bias=False)
    return module.to(memory_format=torch.channels_last)


def images_of(layer, images):
    return torch.randn(images, *layer[:3]).to(memory_format=torch.channels_last)


def layer_step(layer, dtype):
    module, input = module_of(layer), images_of(layer, BATCH).to(dtype)
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
