import sys
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import Tensor, nn

from nasseg.cost import backends
from nasseg.cost.backends import BACKENDS, DTYPES, choose_backend, to_onnx, to_program
from nasseg.cost.inference import random_inputs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Sum(nn.Module):
    """A convolution of the first input plus the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + y  # type: ignore[no-any-return]


def made(dtype: str = "float32") -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    inputs = random_inputs([(1, 3, 5, 7), (1, 4, 5, 7)], CPU, DTYPES[dtype])
    return Sum().to(DTYPES[dtype]).eval().requires_grad_(False), inputs


@torch.inference_mode()
def test_eager_computes_the_outputs() -> None:
    module, inputs = made("bfloat16")
    output = choose_backend("eager", CPU, "bfloat16").prepare(module, inputs)()
    torch.testing.assert_close(output, module(*inputs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_compile_computes_the_outputs() -> None:
    module, inputs = made()
    torch.compiler.reset()
    output = choose_backend("compile", CPU, "float32").prepare(module, inputs)()
    torch.testing.assert_close(output, module(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)])
@torch.inference_mode()
def test_onnxruntime_computes_the_outputs(dtype: str, tolerance: float) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module, inputs = made(dtype)
    binding = choose_backend("onnxruntime", CPU, dtype).prepare(module, inputs)()
    (output,) = binding.copy_outputs_to_cpu()  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.from_numpy(output), module(*inputs), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@torch.inference_mode()
def test_openvino_computes_the_outputs() -> None:
    pytest.importorskip("openvino")
    module, inputs = made()
    (output,) = choose_backend("openvino", CPU, "float32").prepare(module, inputs)().values()  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.from_numpy(output), module(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@torch.inference_mode()
def test_eager_replays_a_graph_on_cuda() -> None:
    module, inputs = made()
    inputs = tuple(value.to("cuda", torch.float16) for value in inputs)
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    run = choose_backend("eager", CUDA, "float16").prepare(module.to("cuda", torch.float16), inputs)
    prepared = len(calls)
    run()
    torch.cuda.synchronize()
    assert len(calls) == prepared


@pytest.mark.parametrize(
    ("name", "device", "dtype", "line"),
    [
        ("onyx", CPU, "float32", "unknown backend 'onyx'; known: eager, compile, onnxruntime, openvino, tensorrt"),
        ("eager", CPU, "float8", "unknown dtype 'float8'; known: float32, float16, bfloat16"),
        ("eager", torch.device("mps"), "float32", "device is mps, but must be cpu or cuda with backend eager"),
        ("tensorrt", CPU, "float32", "device is cpu, but must be cuda with backend tensorrt"),
        ("openvino", CUDA, "float32", "device is cuda, but must be cpu with backend openvino"),
        ("onnxruntime", CPU, "bfloat16", "dtype is bfloat16, but must be float32 or float16 with backend onnxruntime"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(name: str, device: torch.device, dtype: str, line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}$"):
        choose_backend(name, device, dtype)


@pytest.mark.parametrize(
    ("name", "missing", "line"),
    [
        ("onnxruntime", "onnxscript", r"needs the package onnxscript; pip install nasseg\[export\]$"),
        ("openvino", "openvino", r"needs the package openvino; pip install nasseg\[export\] openvino$"),
    ],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str, missing: str, line: str) -> None:
    def find(package: str) -> ModuleSpec | None:
        return None if package == missing else ModuleSpec(package, None)

    monkeypatch.setattr(backends, "find_spec", find)
    with pytest.raises(ValueError, match=f"backend {name} {line}"):
        choose_backend(name, CPU, "float32")


def test_bfloat16_needs_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(ValueError, match="dtype is bfloat16, but this GPU has no instructions for it; use float16"):
        choose_backend("eager", CUDA, "bfloat16")


def test_torch_is_a_backends_version() -> None:
    assert BACKENDS["eager"].version == torch.__version__


def test_backends_load_their_packages_only_when_used() -> None:
    choose_backend("eager", CPU, "float32")
    assert "tensorrt" not in sys.modules


class Unexportable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused() -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match="this network cannot be exported to ONNX: "):
        to_onnx(to_program(Unexportable(), (torch.randn(1, 2, 3, 3),)))
