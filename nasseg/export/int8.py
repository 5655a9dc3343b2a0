"""Static quantisation by ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

OPERATORS = (
    "Conv",
    "ConvTranspose",
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Concat",
    "MaxPool",
    "AveragePool",
    "Relu",
    "Clip",
)
"""Those whose values are rounded. Sizes, norms of attention and the resizing of class scores stay exact."""


def quantised(onnx: bytes, images: Iterable[Tensor]) -> bytes:
    """Quantise an ONNX file to 8-bit integers: weights by channel, activations in the ranges that the images give.

    `images` are as the file takes them, (1, 3, H, W) each.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._left, None)
            return None if image is None else {"image": image.numpy()}

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, disabled = Path(name), logging.root.manager.disable
        (folder / "float.onnx").write_bytes(onnx)
        logging.disable(logging.WARNING)
        try:
            quant_pre_process(folder / "float.onnx", folder / "prepared.onnx", skip_symbolic_shape=True)
            quantize_static(
                folder / "prepared.onnx",
                folder / "int8.onnx",
                Images(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=list(OPERATORS),
            )
        finally:
            logging.disable(disabled)
        return (folder / "int8.onnx").read_bytes()
