"""Exported files: writing them, what they say of themselves, and running them as networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from nasseg.data.augment import denormalise
from nasseg.export.options import ExportInfo
from nasseg.foreign import MAX_ONNX_BYTES, damaged, parse_json, read_bytes
from nasseg.network import Segmenter

if TYPE_CHECKING:
    from onnx import ModelProto

_KEY, _FIX = "nasseg.export", "export it again with nasseg export"


def with_info(onnx: bytes, info: ExportInfo) -> bytes:
    """Write what a file says of itself into it."""
    from onnx import load_model_from_string
    from onnx.helper import set_model_props

    model = load_model_from_string(onnx)
    set_model_props(model, {_KEY: info.model_dump_json()})
    content: bytes = model.SerializeToString()
    return content


class ExportedNetwork(Segmenter):
    """An exported file as a network on the processor; `info` is what the file says of itself."""

    info: ExportInfo

    @abstractmethod
    def run(self, image: Tensor) -> Tensor:
        """Run the file on one image, as `ExportOptions` describes both sides."""

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `ValueError` if the file does not take images of this height and width."""
        options = self.info.options
        if options.images == "fixed" and size != options.size:
            wanted, given = ("x".join(map(str, pixels)) for pixels in (options.size, size))
            raise ValueError(
                f"this file takes images of {wanted}, but was given one of {given}; export with --images any or resized"
            )

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute logits from normalised images, one after the other; class indices give 1 for themselves, else 0."""
        (images,) = inputs.values()
        self.check_size((images.shape[-2], images.shape[-1]))
        given = images.to("cpu", torch.float32)
        if self.info.options.normalise:
            given = denormalise(given)
        logits = torch.cat([self._logits(image[None].contiguous()) for image in given])
        return {"logits": logits.to(images.device)}

    def _logits(self, image: Tensor) -> Tensor:
        made, classes = self.run(image), len(self.info.provenance.data.classes)
        shape = (1, *image.shape[-2:]) if self.info.options.argmax else (1, classes, *image.shape[-2:])
        if made.shape != shape:
            raise ValueError(f"this file gives {tuple(made.shape)} for {shape}; {_FIX}")
        if not self.info.options.argmax:
            return made
        if made.max() >= classes:
            raise ValueError(f"this file gives class {made.max()} of {classes}; {_FIX}")
        return F.one_hot(made.long(), classes).permute(0, 3, 1, 2).float()

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes, H, W) from normalised images."""
        return self.outputs({"image": image})["logits"]


class ProgramNetwork(ExportedNetwork):
    """A program of `torch.export` as a network."""

    def __init__(self, program: torch.export.ExportedProgram, info: ExportInfo) -> None:
        super().__init__()
        self.info = info
        self._run = program.module()

    def run(self, image: Tensor) -> Tensor:
        """Run the program."""
        output: Tensor = self._run(image)
        return output

    def train(self, mode: bool = True) -> Self:
        """Do nothing: a program has no modes."""
        return self


class OnnxNetwork(ExportedNetwork):
    """An ONNX file as a network, with PyTorch's number of threads.

    Raises `ValueError` if `content` is not an ONNX file, was not exported by nasseg, or holds what no export does:
    weights elsewhere, loops and branches, operators of other makers. `path` names it.
    """

    def __init__(self, content: bytes, path: str) -> None:
        super().__init__()
        try:
            import onnx
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError as error:
            raise ValueError(f"{path} needs the package {error.name}; pip install 'nasseg[export]'") from None
        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:  # protobuf's own, which has no public name
            raise ValueError(f"{path} is not an ONNX file ({str(error).splitlines()[0][:80]})") from None
        if (strange := _strange(model)) is not None:
            raise ValueError(f"{path} holds {strange}, which no export does; {_FIX}")
        said = {prop.key: prop.value for prop in model.metadata_props}
        if _KEY not in said:
            raise ValueError(f"{path} was not exported by nasseg, so its classes are unknown; use nasseg export")
        with damaged(path, _FIX):
            self.info = ExportInfo.model_validate(parse_json(said[_KEY]))
        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised
        self._path = path
        with self._running():
            self.session = InferenceSession(content, options, ["CPUExecutionProvider"], enable_fallback=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file; raises `ValueError` also if it cannot be read."""
        return cls(read_bytes(path, MAX_ONNX_BYTES, "give a file that nasseg export wrote"), str(path))

    def run(self, image: Tensor) -> Tensor:
        """Run the file; raises `ValueError` if it cannot be run on this image."""
        with self._running():
            (output,) = self.session.run(None, {"image": image.numpy()})
            return torch.from_numpy(output)

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of many classes of ONNX Runtime's own
            reason = " ".join(str(error).split())[:150]
            raise ValueError(f"{self._path} does not run ({reason}); {_FIX}") from None


def _strange(model: ModelProto) -> str | None:
    """Say what an ONNX model holds that files of ours do not, if anything: it could read other files, or never end."""
    from onnx import AttributeProto, TensorProto

    graph = model.graph
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    weights = [*graph.initializer, *(a.t for a in attributes), *(t for a in attributes for t in a.tensors)]
    if any(weight.data_location == TensorProto.EXTERNAL for weight in weights):
        return "weights in other files"
    if model.functions or any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in attributes):
        return "loops, branches or functions"
    if graph.sparse_initializer or any(a.sparse_tensor.ByteSize() or a.sparse_tensors for a in attributes):
        return "sparse weights"
    makers = {node.domain for node in graph.node} - {"", "ai.onnx"}
    return f"operators of {sorted(makers)[0][:50]!r}" if makers else None
