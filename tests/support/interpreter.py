"""What the tests change in Triton's interpreter, and why. Nothing here touches the package.

`quicken` only saves time. `mend_bfloat16` is needed because the interpreter of Triton 3.9 computes with the bit
patterns of bfloat16 as if they were integers, and cuts where it should round: what products of bfloat16 give with it
says something about our kernels, but nothing about Triton's own bfloat16. Float32 products need none of this.
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
