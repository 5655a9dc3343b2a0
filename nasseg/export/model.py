"""Trained models, whatever file they come from, and their use on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasseg.cost.describe import Description
from nasseg.data import normalise
from nasseg.export.files import ExportedNetwork, OnnxNetwork
from nasseg.foreign import refuse_program
from nasseg.network import Segmenter
from nasseg.train.device import choose_device
from nasseg.train.evaluate import class_scores
from nasseg.train.model import load_model
from nasseg.train.provenance import Provenance


class Model:
    """A trained network with the classes that it knows.

    >>> model = nasseg.Model.load("runs/best")
    >>> mask = model.predict(np.asarray(Image.open("photo.jpg")))
    """

    def __init__(self, segmenter: Segmenter, provenance: Provenance) -> None:
        self.segmenter, self.provenance = segmenter.eval(), provenance
        self.device = torch.device("cpu")

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Model:
        """Open a run folder, a `model.safetensors`, or an exported ONNX file; raises `ValueError` for others."""
        path = Path(path)
        refuse_program(path)
        if path.suffix == ".onnx":
            exported = OnnxNetwork.open(path)
            return cls(exported, exported.info.provenance)
        return cls(*load_model(path)).to(device)

    def to(self, device: str) -> Model:
        """Move to `auto`, `cpu`, `cuda` or `cuda:N`, and return the model. An exported file stays on the processor."""
        if not isinstance(self.segmenter, ExportedNetwork):
            self.device = choose_device(device)
            self.segmenter.to(self.device)
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by their indices in masks."""
        return self.provenance.data.classes

    def network(self) -> Segmenter:
        """Return the trained network: a `torch.nn.Module` that takes normalised images, (N, 3, H, W)."""
        return self.segmenter

    def describe(self, size: tuple[int, int] = (512, 1024)) -> Description:
        """Count parameters and multiply–adds at `size` (height, width); raises `ValueError` for an exported file."""
        from nasseg.network import Network

        if not isinstance(self.segmenter, Network):
            raise ValueError("an exported file has no operators to count; describe the run that it came from")
        return self.segmenter.architecture.describe(size)

    def predict(
        self,
        image: NDArray[np.uint8],
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Segment an image, uint8 (H, W, 3) in RGB, of any size: class indices, uint8 (H, W).

        `scales`, `flip` and `window` are as for `nasseg evaluate`. Raises `ValueError` for another kind of array.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image is {image.dtype} {image.shape}, but must be uint8 (H, W, 3) in RGB; "
                'as np.asarray(Image.open(file).convert("RGB"))'
            )
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
        mask: NDArray[np.uint8] = self.segment(pixels, scales, flip, window).numpy()
        return mask

    @torch.inference_mode()
    def segment(
        self, image: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False, window: tuple[int, int] | None = None
    ) -> Tensor:
        """Segment an image, uint8 (3, H, W), as `predict` does: uint8 (H, W)."""
        size = (image.shape[-2], image.shape[-1])
        inputs = {"image": normalise(image[None].to(self.device))}
        scores = class_scores(self.segmenter, inputs, size, scales, flip, window)
        return scores.argmax(dim=1)[0].to("cpu", torch.uint8)
