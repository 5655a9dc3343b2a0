import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasseg.graph import Architecture, ArchitectureError, Builder
from nasseg.network import Network
from nasseg.ops import (
    Add,
    Concat,
    Conv,
    Dropout,
    Gate,
    GlobalPool,
    Identity,
    PyramidPool,
    Resize,
    TransposedConv,
    conv1x1,
    logits1x1,
)


def branched() -> Architecture:
    """Skips, a gate, a pyramid, a transposed convolution and a train-only output."""
    g = Builder("branched")
    image = g.input()
    with g.scope("backbone"):
        low = g.add("low", Conv(out_channels=4, stride=2), image)
        high = g.add("high", Conv(out_channels=6, stride=2, rate=2), low)
    gated = g.add("cell.gate", Gate(), high, g.add("cell.mean", GlobalPool(), high))
    pooled = g.add("cell.pool", PyramidPool(out_channels=6, grid=2), high)
    x = g.add("cell.dropout", Dropout(), g.add("cell.sum", Add(), gated, pooled))
    up = g.add("decoder.up", TransposedConv(out_channels=4), x, low)
    aside = g.add("aside.logits", logits1x1(3), x)
    joined = g.add("decoder.concat", Concat(), low, up)
    logits = g.add("head.logits", logits1x1(3), joined)
    return g.build(g.add("head.up", Resize(), logits, image), training_outputs=(aside,))


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return branched().network().eval()


@torch.no_grad()
def test_it_computes_what_the_graph_says(network: Network) -> None:
    x = images(2, 3, 9, 13)
    part = network.get_submodule
    low = part("backbone.low")(x)
    high = part("backbone.high")(low)
    summed = high * high.mean((2, 3), keepdim=True).sigmoid() + part("cell.pool")(high)
    logits = part("head.logits")(torch.cat([low, part("decoder.up")(summed, low)], 1))
    expected = F.interpolate(logits, size=(9, 13), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(x), expected)


def test_parameters_have_the_names_of_their_nodes(network: Network) -> None:
    nodes = {node.name for node in network.architecture.nodes}
    for name in network.state_dict():
        assert any(name.startswith(f"{node}.") for node in nodes), name
    convolutions = {name for name, value in network.named_parameters() if value.ndim == 4}
    assert convolutions == {
        "backbone.low.0.weight",
        "backbone.high.0.weight",
        "cell.pool.project.0.weight",
        "decoder.up.conv.weight",
        "aside.logits.weight",
        "head.logits.weight",
    }


def test_training_outputs_are_computed_in_training_only(network: Network) -> None:
    x = images(2, 3, 8, 8)
    calls: list[str] = []
    network.get_submodule("aside.logits").register_forward_hook(lambda *_: calls.append("aside"))
    assert list(network.eval().outputs({"image": x})) == ["head.up"]
    network.eval()(x)
    assert calls == []
    outputs = network.train().outputs({"image": x})
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "head.up": (2, 3, 8, 8),
        "aside.logits": (2, 3, 2, 2),
    }
    assert calls == ["aside"]


@torch.no_grad()
def test_intermediates_are_freed_after_their_last_use() -> None:
    g = Builder("chain")
    image = g.input()
    first = x = g.add("n0", conv1x1(4), image)
    for index in range(1, 20):
        x = g.add(f"n{index}", conv1x1(4), x)
    skip = g.add("skip", Concat(), first, x)
    network = g.build(g.add("out", Identity(), skip)).network().eval()
    refs: dict[str, weakref.ref[Tensor]] = {}
    alive: dict[str, set[str]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            alive[name] = {other for other, ref in refs.items() if ref() is not None}

        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            refs[name] = weakref.ref(output)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    for node in network.architecture.ordered[1:]:
        watch(node.name, network.get_submodule(node.name))
    network(images(1, 3, 4, 4))
    assert alive["n1"] == {"n0"}
    assert all(alive[f"n{index}"] == {"n0", f"n{index - 1}"} for index in range(2, 20))
    assert alive["skip"] == {"n0", "n19"}
    assert alive["out"] == {"skip"}


def test_equal_networks_come_from_equal_seeds() -> None:
    def state() -> dict[str, Tensor]:
        torch.manual_seed(7)
        return branched().network().state_dict()

    torch.testing.assert_close(state(), state(), rtol=0, atol=0)


def test_weights_start_as_the_papers_say() -> None:
    g = Builder("start")
    x = g.add("conv", Conv(out_channels=256, kernel=3, bias=True), g.input(64))
    x = g.add("up", TransposedConv(out_channels=256, kernel=4, init="bilinear"), x)
    state = g.build(x).network().state_dict()
    assert state["conv.0.weight"].std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert state["conv.0.bias"].abs().max() == 0
    assert torch.equal(state["conv.1.weight"], torch.ones(256))
    assert torch.equal(state["up.conv.weight"][3, 3, 1], torch.tensor([3, 9, 9, 3]) / 16)
    assert state["up.conv.weight"][3, 4].abs().max() == 0


def test_wrong_inputs_name_the_right_ones(network: Network) -> None:
    x = images(1, 3, 8, 8)
    with pytest.raises(ValueError, match="branched was given 2 inputs, but takes image"):
        network(x, x)
    with pytest.raises(ValueError, match="branched was given picture, but takes image"):
        network.outputs({"picture": x})


@pytest.mark.parametrize("name", ["half", "outputs", "backbone.train", "type.conv"])
def test_names_that_modules_need_themselves_are_refused(name: str) -> None:
    g = Builder("names")
    architecture = g.build(g.add(name, conv1x1(2), g.input()))
    with pytest.raises(ArchitectureError, match=f"node '{name}': modules have an attribute .*; rename the node"):
        architecture.network()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@torch.no_grad()
def test_compiled_equals_eager(network: Network, backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    x = images(2, 3, 9, 13)
    torch.testing.assert_close(compiled(x), network(x))


def test_compiled_training_has_the_same_gradients(network: Network) -> None:
    x = images(2, 3, 9, 13)
    torch.compiler.reset()
    gradients = []
    for run in (network.train().outputs, torch.compile(network.outputs, backend="aot_eager", fullgraph=True)):
        network.zero_grad()
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        sum(output.square().mean() for output in run({"image": x}).values()).backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_exported_equals_eager(network: Network) -> None:
    x = images(2, 3, 9, 13)
    exported = torch.export.export(network, (x,))
    torch.testing.assert_close(exported.module()(x), network(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@torch.no_grad()
def test_onnx_equals_eager(network: Network, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    x = images(2, 3, 9, 13)
    torch.onnx.export(network, (x,), tmp_path / "network.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(x), rtol=1e-4, atol=1e-5)
