"""Which products take MXFP4 weights themselves, and a refusal where there are none."""

from __future__ import annotations

from ..formats.errors import UsageError
from .architectures import ARCHITECTURES, NATIVE, UPCAST, Architecture


def check_native(dot: str, backend: str, arch: str, *encodings: str) -> None:
    """Refuses a `dot` of NATIVE where weights in `encodings` on `arch` are not multiplied so; others are let pass.

    Args:
        backend: "cuda", "hip", or "interpret": Triton's interpreter, which multiplies everything.
        arch: "sm_120", "gfx950".

    Raises:
        UsageError: the weights are not MXFP4 in planes, or the hardware has no such product.
    """
    if dot not in NATIVE:
        return
    product = f"{NATIVE[dot]} × MXFP4"
    for encoding in encodings:
        if encoding != "MXFP4":
            raise UsageError(
                f"dot={dot!r} multiplies {product}, and the weights are not MXFP4 in planes",
                expected="MXFP4",
                found=encoding,
                remedy="`split_planes` makes planes of GGML_MXFP4; for other encodings use dot='bf16' or dot='f32'.",
            )
    row = ARCHITECTURES.get(arch)
    if backend == "interpret" or (row is not None and dot in row.native):
        return
    raise UsageError(
        f"there is no product of {product} by dot={dot!r} on this GPU",
        expected=f"one of {', '.join(name for name, other in ARCHITECTURES.items() if dot in other.native)}",
        found=arch,
        remedy=_instead(row),
    )


def _instead(row: Architecture | None) -> str:
    if row is not None and row.native:
        return f"Use dot={row.native[0]!r}, which this GPU has."
    if row is not None and row.rung == UPCAST:
        return "Use dot='scaled', which rounds activations to bfloat16 and weights not at all."
    return "Use `moe_by_ladder`, which goes the way of each GPU."
