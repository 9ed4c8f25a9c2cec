"""What the tests change in Triton's interpreter, and why. Nothing here touches the package.

`quicken` only saves time. `mend_bfloat16` is needed because the interpreter of Triton 3.9 computes with the bit
patterns of bfloat16 as if they were integers, and cuts where it should round: what products of bfloat16 give with it
says something about our kernels, but nothing about Triton's own bfloat16. Float32 products need none of this.
`lend_dot_scaled` gives the interpreters before 3.9 the product that they lack; that of 3.9 is its own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def quicken() -> None:
    """Replaces `triton.language` by the interpreter's functions once for each launch, not at every call in it."""
    patch = interpreter._patch_lang
    language = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})
    interpreter._patch_lang = lambda function: patch(language)
    interpreter.InterpretedFunction.__call__ = lambda self, *args, **kwargs: self.rewrite()(*args, **kwargs)


def mend_bfloat16() -> None:
    """Makes conversions to and from bfloat16 and products of it what a GPU's are: to nearest, ties to even."""
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    cast, dot, narrow = builder.cast_impl, builder.create_dot, builder.create_fp_to_fp

    def widen(value: Any) -> Any:
        if value.dtype.scalar != tl.bfloat16:
            return value
        return handle((value.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def rounded(value: Any) -> Any:
        bits = np.ascontiguousarray(value.data, np.float32).view(np.uint32)
        up = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        nan = (bits >> 16 | 0x40).astype(np.uint16)
        return handle(np.where((bits & 0x7FFFFFFF) > 0x7F800000, nan, up), tl.bfloat16)

    def convert(original: Any) -> Any:
        def run(self: Any, source: Any, to: Any, *rest: Any) -> Any:
            if to.scalar == tl.bfloat16 and source.dtype.scalar == tl.float32:
                return rounded(source)
            if source.dtype.scalar == tl.bfloat16 and to.scalar == tl.float32:
                return widen(source)
            return original(self, source, to, *rest)

        return run

    builder.cast_impl, builder.create_fp_to_fp = convert(cast), convert(narrow)
    builder.create_dot = lambda self, a, b, *rest: dot(self, widen(a), widen(b), *rest)


def lend_dot_scaled() -> None:
    """Gives an interpreter without `tl.dot_scaled` one: both sides decoded to float32, products summed in float64."""
    builder = interpreter.InterpreterBuilder
    if hasattr(builder, "create_dot_scaled"):
        return
    from triton.language.semantic import TritonSemantic

    checked = TritonSemantic.dot_scaled

    def named(self: Any, a: Any, a_scale: Any, a_kind: Any, b: Any, b_scale: Any, b_kind: Any, *rest: Any) -> Any:
        a_name, b_name = (tl.constexpr(getattr(kind, "value", kind)) for kind in (a_kind, b_kind))
        return checked(self, a, a_scale, a_name, b, b_scale, b_name, *rest)

    def product(_: Any, a: Any, a_scale: Any, _a: Any, b: Any, b_scale: Any, _b: Any, *rest: Any) -> Any:
        left, right = _decoded(a, a_scale, a.data), _decoded(b, b_scale, b.data.T)
        total = rest[-1].data + left @ right.T
        return interpreter.TensorHandle(total.astype(np.float32), tl.float32)

    TritonSemantic.dot_scaled, builder.create_dot_scaled = named, product


def _decoded(operand: Any, scale: Any, rows: Any) -> Any:
    """float64 [rows, K] of codes or floats [rows, …] and their scales uint8 [rows, K / 32], if they have any."""
    kind = operand.dtype.scalar
    if kind == tl.uint8:
        values = _E2M1[np.stack([rows & 15, rows >> 4], axis=-1).reshape(len(rows), -1)]
    elif kind == tl.float8e4nv:
        values = _E4M3[rows.view(np.uint8)]
    elif kind == tl.bfloat16:
        values = (rows.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    else:
        values = rows.astype(np.float64)
    if scale is None:
        return values
    powers = np.where(scale.data == 255, np.nan, np.ldexp(1.0, scale.data.astype(np.int32) - 127))
    return values * powers.repeat(values.shape[1] // powers.shape[1], axis=1)


def _magnitudes(mantissa_bits: int, bias: int, n_codes: int) -> Any:
    code = np.arange(n_codes)
    exponent, mantissa = code >> mantissa_bits, (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    return np.where(exponent == 0, np.ldexp(mantissa, 1 - bias), np.ldexp(1 + mantissa, exponent - bias))


_E2M1 = np.concatenate([_magnitudes(1, 1, 8), -_magnitudes(1, 1, 8)])
_E4M3 = np.concatenate([_magnitudes(3, 7, 128), -_magnitudes(3, 7, 128)])
_E4M3[[0x7F, 0xFF]] = np.nan
