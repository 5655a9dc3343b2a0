"""What a user may ask of an export, and what an exported file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from nasseg.train.provenance import Provenance


@dataclass(frozen=True)
class Format:
    """A kind of exported file: its suffix, the number format inside, and the packages that writing it needs.

    `exact` says that it must compute PyTorch's logits up to rounding.
    """

    description: str
    suffix: str
    dtype: torch.dtype = torch.float32
    int8: bool = False
    packages: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether it computes PyTorch's logits up to rounding."""
        return self.dtype == torch.float32 and not self.int8


_ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS: dict[str, Format] = {
    "onnx": Format("ONNX", ".onnx", packages=_ONNX),
    "onnx-float16": Format("ONNX in half precision", ".onnx", torch.float16, packages=_ONNX),
    "int8": Format("ONNX in 8-bit integers, by static quantisation", ".onnx", int8=True, packages=_ONNX),
    "torch": Format("torch.export's program", ".pt2"),
    "torch-float16": Format("torch.export's program in half precision", ".pt2", torch.float16),
    "torch-bfloat16": Format("torch.export's program in bfloat16", ".pt2", torch.bfloat16),
}

Pixels = Annotated[int, Field(ge=32)]


class ExportOptions(BaseModel):
    """What an exported file takes and gives.

    It takes one image, (1, 3, H, W): float32, normalised as in training, or with `normalise` uint8 in RGB.
    `images` says of which size: `fixed` (`size`), `any`, or any that the file resizes to `size`, and its logits back
    (`resized`). It gives float32 logits (1, classes, H, W), or with `argmax` uint8 class indices (1, H, W).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "onnx"
    size: tuple[Pixels, Pixels]
    images: Literal["fixed", "any", "resized"] = "fixed"
    normalise: bool = False
    argmax: bool = False

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"format is {name!r}, but must be one of {', '.join(FORMATS)}")
        return name

    @property
    def made(self) -> Format:
        """The format itself."""
        return FORMATS[self.format]

    def check_packages(self) -> None:
        """Raise `ValueError` with pip's command if a package is missing."""
        missing = [package for package in self.made.packages if find_spec(package) is None]
        if missing:
            raise ValueError(f"format {self.format} needs the package {missing[0]}; pip install 'nasseg[export]'")


class ExportInfo(BaseModel):
    """What an exported file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["nasseg.export/1"] = "nasseg.export/1"
    architecture: str
    params: int
    madds: int
    options: ExportOptions
    provenance: Provenance
