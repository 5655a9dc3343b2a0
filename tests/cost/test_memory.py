import pytest
import torch

from nasseg import plugins
from nasseg.cost.inference import inference_form, random_inputs
from nasseg.cost.memory import Allocated, op_memory, peak_memory_bytes
from nasseg.graph import Architecture, Builder
from nasseg.network import Network
from nasseg.ops import (
    Add,
    AttentionFusion,
    Concat,
    Conv,
    GlobalFilter,
    Identity,
    Op,
    Resize,
    SelfAttention,
    StripPool,
    conv1x1,
    logits1x1,
)

FLOAT = 4


def test_allocations_are_counted_until_they_are_freed() -> None:
    kept = torch.zeros(100)
    with Allocated() as memory:
        a = torch.zeros(1000)
        view = a[10:].reshape(-1, 2)
        b = kept + 1
        assert memory.alive == FLOAT * 1100
        del a
        b.mul_(2)
        assert memory.alive == FLOAT * 1100
        del view
    assert (memory.alive, memory.peak) == (FLOAT * 100, FLOAT * 1100)


def test_an_operator_by_hand() -> None:
    memory = op_memory(Conv(out_channels=8, stride=2), ((3, 8, 12),))
    assert memory.weights == FLOAT * (8 * 3 * 9 + 8)  # batch norm became the bias
    assert memory.output == memory.peak == FLOAT * 8 * 4 * 6
    assert memory.alias is None


def test_number_format_and_batch_scale_maps() -> None:
    single = op_memory(conv1x1(8), ((3, 4, 4),))
    assert op_memory(conv1x1(8), ((3, 4, 4),), batch=3).peak == 3 * single.peak
    assert op_memory(conv1x1(8), ((3, 4, 4),), dtype="float16").weights == single.weights // 2


def test_an_identity_takes_nothing_and_keeps_its_input() -> None:
    memory = op_memory(Resize(), ((4, 8, 8), (3, 8, 8)))
    assert (memory.peak, memory.alias) == (0, 0)
    g = Builder("aliases")
    image = g.input()
    x = g.add("wide", conv1x1(50), image)
    passed = g.add("passed", Identity(), x)
    y = g.add("narrow", conv1x1(1), x)
    network = g.build(g.add("logits", logits1x1(2), g.add("sum", Add(), passed, y)))
    pixels = FLOAT * 64
    weights = FLOAT * (50 * 3 + 50 + 50 + 1 + 2 * 50 + 2)
    # at the sum: the image, the wide map, the narrow one, and the sum itself
    assert peak_memory_bytes(network, (8, 8)) == weights + pixels * (3 + 50 + 1 + 50)


def test_maps_are_freed_after_their_last_use() -> None:
    g = Builder("chain")
    x = g.input()
    for index, channels in enumerate([10, 20, 30, 5]):
        x = g.add(f"conv{index}", conv1x1(channels), x)
    pixels, weights = FLOAT * 64, FLOAT * (3 * 10 + 10 + 10 * 20 + 20 + 20 * 30 + 30 + 30 * 5 + 5)
    assert peak_memory_bytes(g.build(x), (8, 8)) == weights + pixels * (3 + 20 + 30)


def test_a_node_used_twice_stays() -> None:
    g = Builder("skip")
    image = g.input()
    x = g.add("first", conv1x1(10), image)
    y = g.add("second", conv1x1(40), x)
    network = g.build(g.add("joined", Concat(), x, y))
    weights = FLOAT * (3 * 10 + 10 + 10 * 40 + 40)
    assert peak_memory_bytes(network, (8, 8)) == weights + FLOAT * 64 * (3 + 10 + 40 + 50)


def counted(architecture: Architecture, size: tuple[int, int]) -> int:
    """The peak memory of a real run on the CPU."""
    (image,) = random_inputs([(1, 3, *size)], torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        form = inference_form(Network(architecture.inference()), (image,))
        with Allocated() as memory:
            form(image)
    weights = sum(t.nbytes for t in (*form.parameters(), *form.buffers()))
    return int(weights + image.nbytes + memory.peak)


@pytest.mark.parametrize(
    "name", ["auto_deeplab:layers=4,filters=4", "stdc1", "deeplabv3plus-mobilenetv2", "dpc:filters=16", "unetplusplus"]
)
def test_the_graph_tells_what_a_run_takes(name: str) -> None:
    architecture = plugins.architecture(name, 19)
    assert peak_memory_bytes(architecture, (64, 96)) == counted(architecture, (64, 96))


@pytest.mark.parametrize(
    "op",
    [AttentionFusion(), AttentionFusion(attention="channel"), StripPool(out_channels=6), GlobalFilter(out_channels=6)],
)
def test_temporary_maps_are_counted(op: Op) -> None:
    shapes = [(8, 5, 7)] * op.arity[0]
    inputs = random_inputs([(1, *shape) for shape in shapes], torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        form = inference_form(op.build([8, 8]), inputs)
        with Allocated() as memory:
            form(*inputs)
    assert op_memory(op, tuple(shapes)).peak == memory.peak


def test_attention_is_taken_to_be_fused() -> None:
    """Without the products of all pairs of pixels, 4 heads of (24 · 32)² here: a few maps only."""
    memory = op_memory(SelfAttention(out_channels=16), ((16, 24, 32),))
    assert 3 * memory.output < memory.peak < 9 * memory.output < FLOAT * (24 * 32) ** 2


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["stdc1", "deeplabv3plus-mobilenetv2", "fcn-resnet50"])
def test_the_graph_tells_what_the_allocator_counts(name: str) -> None:
    architecture, device = plugins.architecture(name, 19), torch.device("cuda")
    (image,) = random_inputs([(1, 3, 512, 1024)], device, torch.float32)
    before = torch.cuda.memory_allocated(device) - image.nbytes
    with torch.inference_mode():
        form = inference_form(Network(architecture.inference()).to(device), (image,))
        torch.cuda.reset_peak_memory_stats(device)
        form(image)
    measured = torch.cuda.max_memory_allocated(device) - before
    assert peak_memory_bytes(architecture, (512, 1024)) == pytest.approx(measured, rel=0.15)
