"""The Triton kernels compile for several generations of GPUs, which needs Triton (`pip install triton`) but no GPU."""

import importlib
import os

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter compiles nothing", allow_module_level=True)
triton = pytest.importorskip("triton", reason="needs Triton, which comes with PyTorch for CUDA")

kernels = importlib.import_module("nasseg.ops.depthwise_kernels")

COMPUTE_CAPABILITIES = (75, 80, 90)
CHANNELS = 128
LENGTHS = ("pixels", "of_a_part", "height", "width", "channels", "down", "right")


@pytest.mark.parametrize("capability", COMPUTE_CAPABILITIES)
@pytest.mark.parametrize("dtype", ["fp16", "fp32", "fp64"])
@pytest.mark.parametrize("kernel", [3, 7])
def test_they_read_sixteen_bytes_at_once(capability: int, dtype: str, kernel: int) -> None:
    """If channels are a multiple of 16: fewer bytes would leave memory waiting."""
    sums = "fp64" if dtype == "fp64" else "fp32"
    constants = {"kernel": kernel, "block": CHANNELS, "sum_type": getattr(triton.language, f"float{sums[2:]}")}
    for function, block in (
        (kernels.centred_kernel, {"stretch": kernels.COLUMNS}),
        (kernels.weight_gradient_kernel, {"pixels_at_once": kernels.PIXELS}),
    ):
        known = constants | block
        types = {
            name: "constexpr"
            if name in known
            else "i32"
            if name in LENGTHS
            else f"*{sums if name == 'sums' else dtype}"
            for name in function.arg_names
        }
        multiples = [name for name, type in types.items() if type.startswith("*") or name == "channels"]
        attributes = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in multiples}
        source = triton.compiler.ASTSource(function, types, constexprs=known, attrs=attributes)
        target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
        made = triton.compile(source, target=target).asm
        assert made["cubin"]
        reads = "ld.global.v2.b64" if dtype == "fp64" else "ld.global.v4.b32"
        assert reads in made["ptx"]
