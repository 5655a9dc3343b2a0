"""Backends that run a network: PyTorch itself, its compiler, or a runtime that reads ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor, nn

Run = Callable[[], object]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Backend:
    """A way to run networks: `prepare` turns a module in inference form and its inputs into a call that runs it once.

    `packages` are those it imports, its own first.
    """

    prepare: Callable[[nn.Module, tuple[Tensor, ...]], Run]
    packages: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = tuple(DTYPES)

    @property
    def version(self) -> str:
        """The version of its own package."""
        return version(self.packages[0])


def choose_backend(name: str, device: torch.device, dtype: str) -> Backend:
    """Return the backend `name`; raises `ValueError` if unknown, not installed, or not for this device or dtype."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    backend = BACKENDS[name]
    for what, value, known in (("device", device.type, backend.devices), ("dtype", dtype, backend.dtypes)):
        if value not in known:
            raise ValueError(f"{what} is {value}, but must be {' or '.join(known)} with backend {name}")
    if dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("dtype is bfloat16, but this GPU has no instructions for it; use float16")
    missing = [package for package in backend.packages if find_spec(package) is None]
    if missing:
        install = "nasseg[export]" + ("" if name == "onnxruntime" else f" {name}")
        raise ValueError(f"backend {name} needs the package {missing[0]}; pip install {install}")
    return backend


def _eager(module: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    def run() -> object:
        return module(*inputs)

    return _cuda_graph(run) if inputs[0].is_cuda else run


def _cuda_graph(run: Run) -> Run:
    """Capture the kernels of `run` as one graph, which spares Python their launches; if that fails, return `run`."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # libraries choose their kernels and allocate before the capture
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        return run
    return graph.replay


def _compile(module: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    compiled = torch.compile(module, mode="reduce-overhead", dynamic=False)  # CUDA graphs if there is CUDA
    return lambda: compiled(*inputs)


def _onnxruntime(module: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    import onnxruntime

    device, index = inputs[0].device.type, inputs[0].device.index or 0
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider}; pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(to_onnx(to_program(module, inputs)), options, [provider])
    binding = session.io_binding()
    held = tuple(value.contiguous() for value in inputs)
    for port, value in zip(session.get_inputs(), held, strict=True):
        element = {"tensor(float)": "float32", "tensor(float16)": "float16"}[port.type]
        binding.bind_input(port.name, device, index, element, tuple(value.shape), value.data_ptr())
    for port in session.get_outputs():
        binding.bind_output(port.name, device, index)

    def run(_: object = held) -> object:  # the binding holds only the inputs' addresses
        session.run_with_iobinding(binding)
        return binding

    return run


def _openvino(module: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    import openvino

    core = openvino.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # it would use bfloat16 on processors that have it
    }
    compiled = core.compile_model(core.read_model(io.BytesIO(to_onnx(to_program(module, inputs)))), "CPU", config)
    request = compiled.create_infer_request()
    for index, value in enumerate(inputs):
        request.set_input_tensor(index, openvino.Tensor(value.contiguous().numpy()))
    return lambda: request.infer()


def _tensorrt(module: nn.Module, inputs: tuple[Tensor, ...]) -> Run:
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    # strongly typed: the number formats are those of the ONNX file
    definition = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(definition, logger)
    if not parser.parse(to_onnx(to_program(module, inputs))):
        raise ValueError(f"TensorRT cannot read this network: {parser.get_error(0)}")
    plan = builder.build_serialized_network(definition, builder.create_builder_config())
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    outputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT]
    held = dict(zip((name for name in names if name not in outputs), (v.contiguous() for v in inputs), strict=True))
    for name in outputs:
        held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=inputs[0].dtype, device=inputs[0].device)
    for name, value in held.items():
        context.set_tensor_address(name, value.data_ptr())

    def run(_: object = (engine, held)) -> object:  # the context holds only their addresses
        return context.execute_async_v3(torch.cuda.current_stream().cuda_stream)

    return run


def to_onnx(program: torch.export.ExportedProgram, input_name: str = "image", output_name: str = "logits") -> bytes:
    """Write an exported program as ONNX; raises `ValueError` if it has what ONNX has not.

    A single input gets `input_name`, more of them PyTorch's names.
    """
    inputs = [input_name] if len(program.graph_signature.user_inputs) == 1 else None
    with _quiet():
        try:
            made = torch.onnx.export(program, input_names=inputs, output_names=[output_name], dynamo=True)
        except torch.onnx.errors.OnnxExporterError as error:
            raise ValueError(f"this network cannot be exported to ONNX: {str(error).splitlines()[0]}") from None
    assert made is not None
    content: bytes = made.model_proto.SerializeToString()
    return content


def to_program(
    module: nn.Module, inputs: tuple[Tensor, ...], *, any_size: bool = False
) -> torch.export.ExportedProgram:
    """Export the module for inputs of these shapes, (N, C, H, W) each; `any_size` leaves their heights and widths open.

    An axis of length 1 stays so. The program runs for other sizes as well only if it holds no comparison of sizes that
    comes out otherwise for them (`nasseg.ops.layers.known`).
    """
    dynamic = torch.export.Dim.DYNAMIC
    sizes = tuple({axis: dynamic for axis in (2, 3) if any_size and value.shape[axis] > 1} for value in inputs)
    return torch.export.export(_Call(module), inputs, dynamic_shapes=(sizes,), strict=False)


class _Call(nn.Module):
    """A module as one that takes its inputs in one way, whatever its own `forward` calls them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Tensor = self.module(*inputs)
        return output


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's progress and its dependencies' deprecation warnings, which are not for users."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


_EXPORTER = ("onnx", "onnxscript")
BACKENDS: dict[str, Backend] = {
    "eager": Backend(_eager, ("torch",)),
    "compile": Backend(_compile, ("torch",)),
    "onnxruntime": Backend(_onnxruntime, ("onnxruntime", *_EXPORTER), dtypes=("float32", "float16")),
    "openvino": Backend(_openvino, ("openvino", *_EXPORTER), devices=("cpu",), dtypes=("float32",)),
    "tensorrt": Backend(_tensorrt, ("tensorrt", *_EXPORTER), devices=("cuda",)),
}
