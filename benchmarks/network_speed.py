"""Our networks against torchvision's and segmentation_models_pytorch's of the same layout, with equal weights.

    python benchmarks/network_speed.py --device cuda --size 512x1024

Time of a forward pass in inference and of a training step (forward, cross entropy, backward), in milliseconds: medians,
both networks in one process, taking turns. Peak memory above that of the weights, in MiB: on CUDA as the allocator
counts it, on the CPU as PyTorch's profiler does (without buffers inside operators). The difference of the outputs is
the largest, relative to the largest output. Libraries that are not installed are left out. If torchvision's wheel does
not import with a CPU build of torch, put a module `torchvision_beside_cpu_torch` that declares its missing operators on
PYTHONPATH; it is imported first.
"""

import argparse
import contextlib
import gc
import importlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.backbones import BACKBONES
from baselines.deeplabv3 import deeplabv3_resnet50
from baselines.fcn import fcn_resnet50
from baselines.heads import ASPP_RATES, aspp, classifier
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, Conv, Op, Resize, SeparableConv, conv1x1

CLASSES = 19
WARM_UP = 2


class Pair(NamedTuple):
    """One layout, ours and a library's; both give one (N, C, H, W) tensor."""

    name: str
    library: str
    ours: Architecture
    theirs: Callable[[], nn.Module]


class Cost(NamedTuple):
    """The cost of one pass."""

    median_ms: float
    peak_mib: float


class Output(nn.Module):
    """The logits of torchvision's segmentation networks, which return a dictionary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)["out"]
        return logits


def torchvision_pairs(models: ModuleType) -> Iterator[Pair]:
    options = {"weights": None, "weights_backbone": None, "num_classes": CLASSES, "aux_loss": False}
    segmentation, library = models.segmentation, "torchvision"
    mobilenet, resnet = backbone("mobilenetv2", 32), backbone("resnet50", 32)
    fcn, deeplab = fcn_resnet50(CLASSES).inference(), deeplabv3_resnet50(CLASSES, output_stride=8, last_conv=True)
    yield Pair("mobilenetv2 backbone", library, mobilenet, lambda: models.mobilenet_v2().features[:18])
    yield Pair("resnet50 backbone", library, resnet, lambda: nn.Sequential(*list(models.resnet50().children())[:-2]))
    yield Pair("fcn-resnet50", library, fcn, lambda: Output(segmentation.fcn_resnet50(**options)))
    theirs = partial(segmentation.deeplabv3_resnet50, **options)
    yield Pair("deeplabv3-resnet50, stride 8", library, deeplab, lambda: Output(theirs()))


def smp_pairs(smp: ModuleType) -> Iterator[Pair]:
    def theirs(encoder: str) -> nn.Module:
        network: nn.Module = smp.DeepLabV3Plus(
            encoder, encoder_weights=None, classes=CLASSES, decoder_atrous_rates=ASPP_RATES
        )
        for module in network.modules():
            if isinstance(module, nn.Upsample):
                module.align_corners = False  # ours has half-pixel centres, at the same cost
        return network

    for name, encoder in (("mobilenetv2", "mobilenet_v2"), ("resnet50", "resnet50")):
        ours, library = smp_deeplabv3plus(name), "segmentation_models_pytorch"
        yield Pair(f"deeplabv3plus-{name}, smp's head", library, ours, partial(theirs, encoder))


def backbone(name: str, output_stride: int) -> Architecture:
    g = Builder(name)
    return g.build(BACKBONES[name](g, g.input(), output_stride).output)


def smp_deeplabv3plus(name: str) -> Architecture:
    """Build their DeepLabV3+: separable convolutions without a norm inside, one after ASPP and one in the decoder."""
    g = Builder(f"deeplabv3plus-{name} as in smp")
    image = g.input()
    features = BACKBONES[name](g, image, 16)
    output = features.output
    if name == "mobilenetv2":
        output = g.add("backbone.features.18", Conv(out_channels=1280, kernel=1, activation="relu6"), output)
    x = aspp(g, output, 16, separable=True)
    x = g.add("cell.last", SeparableConv(out_channels=256), x)
    with g.scope("decoder"):
        low = g.add("low_level", conv1x1(48), features.low_level)
        x = g.add("concat", Concat(), g.add("upsample", Resize(), x, low), low)
        x = g.add("conv", SeparableConv(out_channels=256), x)
    architecture = g.build(classifier(g, x, image, CLASSES))
    nodes = [node.model_copy(update={"op": as_in_smp(node.op, node.name)}) for node in architecture.nodes]
    return architecture.replace(nodes=tuple(nodes))


def as_in_smp(op: Op, name: str) -> Op:
    """Drop the norm inside separable convolutions; make all of the stage that lost its stride atrous."""
    if isinstance(op, SeparableConv):
        return op.model_copy(update={"depthwise_norm": "none", "depthwise_activation": "none"})
    return op.model_copy(update={"rate": (2, 2)}) if name in {"backbone.features.14", "backbone.layer4.0"} else op


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy every tensor, in the order of definition, which is the order of computation in both."""
    own, theirs = list(target.state_dict().values()), list(source.state_dict().values())
    if [tensor.shape for tensor in own] != [tensor.shape for tensor in theirs]:
        raise ValueError("the networks have different layouts: their tensors differ in number or shape")
    with torch.no_grad():
        for mine, other in zip(own, theirs, strict=True):
            mine.copy_(other)


def spread_norms(network: nn.Module) -> None:
    """Set norms as in a trained network, so that a wrong one shows and deep maps neither vanish nor overflow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.1)
            buffers = dict(module.named_buffers())
            nn.init.normal_(buffers["running_mean"], std=0.1)
            nn.init.uniform_(buffers["running_var"], 0.8, 1.2)


@torch.inference_mode()
def relative_difference(ours: nn.Module, theirs: nn.Module, images: Tensor) -> float:
    with torch.backends.cudnn.flags(allow_tf32=False):
        mine, other = ours.eval()(images), theirs.eval()(images)
    return float((mine - other).abs().max() / other.abs().max())


def inference(network: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        network(images)


def training_step(network: nn.Module, images: Tensor) -> None:
    logits = network(images)
    masks = torch.zeros(logits.shape[0], *logits.shape[-2:], dtype=torch.long, device=logits.device)
    F.cross_entropy(logits, masks).backward()


def compare(
    step: Callable[[nn.Module, Tensor], None], networks: tuple[nn.Module, ...], images: Tensor, repeats: int
) -> list[Cost]:
    times: list[list[float]] = [[] for _ in networks]
    for repeat in range(WARM_UP + repeats):
        for network, measured in zip(networks, times, strict=True):
            network.zero_grad(set_to_none=True)
            synchronise(images.device)
            start = time.perf_counter()
            step(network, images)
            synchronise(images.device)
            if repeat >= WARM_UP:
                measured.append((time.perf_counter() - start) * 1000)
    costs = []
    for network, measured in zip(networks, times, strict=True):
        network.zero_grad(set_to_none=True)
        costs.append(Cost(statistics.median(measured), peak_mib(lambda n=network: step(n, images), images.device)))  # type: ignore[misc]
        network.zero_grad(set_to_none=True)
    return costs


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(call: Callable[[], None], device: torch.device) -> float:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        synchronise(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    allocated = peak = 0
    for event in sorted(profiler.events(), key=lambda event: event.time_range.end):
        allocated += event.self_cpu_memory_usage
        peak = max(peak, allocated)
    return peak / 2**20


def measure(pair: Pair, images: Tensor, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    theirs = pair.theirs()
    spread_norms(theirs)
    ours = pair.ours.network()
    copy_weights(theirs, ours)
    networks = (ours.to(images.device), theirs.to(images.device))
    row: dict[str, Any] = {
        "network": pair.name,
        "library": pair.library,
        "difference": relative_difference(*networks, images),
    }
    for name, step in (("inference", inference), ("training", training_step)):
        for network in networks:
            network.train(name == "training")
        mine, other = compare(step, networks, images, repeats)
        ratios = {"time_ratio": mine.median_ms / other.median_ms, "memory_ratio": mine.peak_mib / other.peak_mib}
        times = {"ours_ms": mine.median_ms, "theirs_ms": other.median_ms}
        row[name] = {**times, "ours_mib": mine.peak_mib, "theirs_mib": other.peak_mib, **ratios}
    return row


def pairs() -> tuple[list[Pair], list[str]]:
    """List the comparisons that the installed libraries allow, and why others are left out."""
    with contextlib.suppress(ImportError):
        importlib.import_module("torchvision_beside_cpu_torch")
    found: list[Pair] = []
    skipped: list[str] = []
    try:
        found += torchvision_pairs(importlib.import_module("torchvision.models"))
        found += smp_pairs(importlib.import_module("segmentation_models_pytorch"))
    except (ImportError, RuntimeError) as error:
        skipped.append(f"what needs a package that does not import: {error}")
    return found, skipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", default="256x512", help="HEIGHTxWIDTH")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if options.batch < 2:
        parser.error(f"--batch is {options.batch}, but must be at least 2: their image pooling needs it to train")
    height, width = map(int, options.size.split("x"))
    device = torch.device(options.device)
    images = torch.randn(options.batch, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    found, skipped = pairs()
    for reason in skipped:
        print(f"left out: {reason}")
    print(f"{'':36} {'pass':10} {'ours':>9} {'theirs':>9}   ms, {'ours':>9} {'theirs':>9}   MiB, difference")
    rows = []
    for pair in found:
        row = measure(pair, images, options.repeats)
        rows.append(row)
        for name in ("inference", "training"):
            cost = row[name]
            print(
                f"{pair.name:36} {name:10} {cost['ours_ms']:9.1f} "
                f"{cost['theirs_ms']:9.1f}       {cost['ours_mib']:9.1f} {cost['theirs_mib']:9.1f}        "
                f"{row['difference']:.1e}",
                flush=True,
            )
    print(
        json.dumps(
            {
                "benchmark": "network_speed",
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "size": [height, width],
                "batch": options.batch,
                "repeats": options.repeats,
                "skipped": skipped,
                "results": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
