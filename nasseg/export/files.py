"""Exported files: writing them, what they say of themselves, and running them as networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from typing_extensions import Self

from nasseg.data.augment import denormalise
from nasseg.errors import one_line
from nasseg.export.options import ExportInfo
from nasseg.network import Segmenter

_KEY = "nasseg.export"


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
        made = torch.cat([self.run(image[None].contiguous()) for image in given])
        if self.info.options.argmax:
            classes = len(self.info.provenance.data.classes)
            made = F.one_hot(made.long(), classes).permute(0, 3, 1, 2).float()
        return {"logits": made.to(images.device)}

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

    Raises `ValueError` if `content` is not an ONNX file, was not exported by nasseg, or holds its weights elsewhere;
    `path` names it.
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
        if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in model.graph.initializer):
            raise ValueError(f"{path} holds its weights in other files; export it again with nasseg export")
        said = {prop.key: prop.value for prop in model.metadata_props}
        if _KEY not in said:
            raise ValueError(f"{path} was not exported by nasseg, so its classes are unknown; use nasseg export")
        try:
            self.info = ExportInfo.model_validate_json(said[_KEY])
        except ValidationError as error:
            raise ValueError(one_line(error, path)) from None
        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session = InferenceSession(content, options, ["CPUExecutionProvider"])

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file; raises `ValueError` also if it cannot be read."""
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}; give a file that nasseg export wrote") from None

    def run(self, image: Tensor) -> Tensor:
        """Run the file."""
        (output,) = self.session.run(None, {"image": image.numpy()})
        return torch.from_numpy(output)
