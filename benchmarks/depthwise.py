"""A training step with our depthwise convolutions, and with PyTorch's; on a CPU inference, too.

    OMP_NUM_THREADS=1 python benchmarks/depthwise.py
    python benchmarks/depthwise.py --device cuda

Layers in inference on one image (on a CPU alone), layers alone, forward and backward, then steps of whole networks at
180×240 in batches of 8 (`--networks` without names for none). The two take turns, and the median over the rounds is
shown; times are only comparable within a line.

A layer's limit is the time in which the device copies as much as its three passes must read and write: six maps.
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
ON_A_GPU = [(256, 49, 49, 3, 1, rate) for rate in (1, 3, 6, 12, 18, (1, 6), (18, 15))] + [
    (960, 32, 64, 5, 1, 1),
    (576, 64, 128, 7, 1, 1),
]
NETWORKS = ("deeplabv3plus-mobilenetv2", "deeplabv3plus-efficientnet_lite0", "lraspp", "stdc1", "auto_deeplab-s")
BATCH, SIZE, CLASSES = 8, (176, 240), 11


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    rows = {}
    for name, step, limit_ms in cases(args.networks, args.device):
        times = {"torch": [], "ours": []}
        for _ in range(args.rounds + 1):
            for way, context in (("torch", stock), ("ours", nullcontext)):
                with context():
                    times[way].append(milliseconds(step, args.device))
        rows[name] = {way: statistics.median(found[1:]) for way, found in times.items()} | {"limit": limit_ms}
        torch_ms, ours_ms, _ = rows[name].values()
        limits = "" if limit_ms is None else f"{torch_ms / limit_ms:8.1f} and {ours_ms / limit_ms:.1f} times the limit"
        print(f"{name:48}{torch_ms:9.3f} ms{ours_ms:9.3f} ms{torch_ms / ours_ms:8.2f} times{limits}", flush=True)
    settings = {"threads": torch.get_num_threads(), "device": str(args.device), "torch": torch.__version__}
    print(json.dumps({"benchmark": "depthwise", **settings, "ms": rows}))


def milliseconds(step, device):
    """The time of a step, on a GPU of twenty that follow each other, so that what starts them counts less."""
    if device.type == "cpu":
        start = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - start)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        step()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / 20


def cases(networks, device):
    """Yield the name of each case, what is timed, and the least that it could take, if known."""
    bytes_per_ms = copied_per_ms(device)
    for dtype in (torch.float32, torch.bfloat16):
        in_inference, in_training = (IN_INFERENCE, LAYERS) if device.type == "cpu" else ([], ON_A_GPU)
        for layer in in_inference:
            yield f"{described(layer, dtype)} in inference", layer_pass(layer, dtype), None
        for layer in in_training:
            input = images_of(layer, BATCH).to(device, dtype)
            limit_ms = 6 * input.nbytes / bytes_per_ms if layer[4] == 1 else None
            yield described(layer, dtype), layer_step(layer, input), limit_ms
    for amp in (False, True):
        for name in networks:
            yield f"{name}{', mixed precision' if amp else ''}", network_step(name, amp, device), None


def described(layer, dtype):
    return f"{str(dtype)[6:]} {'{}×{}×{} kernel {} stride {} rate {}'.format(*layer)}"


def copied_per_ms(device):
    """The bytes that a large copy reads and writes in a millisecond."""
    source = torch.ones((256 if device.type == "cpu" else 2048) << 20, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    times = [milliseconds(lambda: copy.copy_(source), device) for _ in range(5)]
    return 2 * source.nbytes / statistics.median(times)


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


def layer_step(layer, input):
    module = module_of(layer).to(input.device)
    input.requires_grad_()
    with torch.no_grad():
        gradient = torch.ones_like(module(input.float())).to(input.dtype)

    def step():
        with torch.autocast(input.device.type, torch.bfloat16, enabled=input.dtype == torch.bfloat16):
            output = module(input)
        output.backward(gradient)

    return step


def network_step(name, amp, device):
    recipe = short(steps=10_000, batch_size=BATCH).model_copy(update={"amp": amp})
    trainer = Trainer(seeded_network(plugins.baseline(name, CLASSES), 0), recipe, recipe.steps, device, 0, 255)
    images, masks = torch.randn(BATCH, 3, *SIZE), torch.randint(0, CLASSES, (BATCH, *SIZE))
    batch = Batch({"image": images.to(device)}, masks.to(device))
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
