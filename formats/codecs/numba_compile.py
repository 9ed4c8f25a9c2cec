"""How the numba modules compile: for the types they name, GIL free, kept on disk."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from numba import extending, njit, types

_COMPILING = threading.Lock()


def rows(element: Any, ndim: int, *, out: bool = False) -> Any:
    """The type of an array with any strides at any address; written to if `out`."""
    return types.Array(element, ndim, "A", readonly=not out, aligned=False)


def flat(element: Any, ndim: int = 1, *, out: bool = False) -> Any:
    """The type of a C-contiguous array at any address; written to if `out`."""
    return types.Array(element, ndim, "C", readonly=not out, aligned=False)


def kernel(*signatures: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compiles a function for `signatures` alone, on its first call.

    The machine code is kept on disk: beside the function's file, or else in the user's cache folder. Where numba can
    write neither (it raises then), it is compiled again in each process.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        kept: list[Any] = []

        def compiled() -> Any:
            # One thread compiles or loads; the others need the result too and wait.
            with _COMPILING:
                if not kept:
                    try:
                        kept.append(njit(list(signatures), nogil=True, cache=True)(function))
                    except (RuntimeError, OSError):
                        kept.append(njit(list(signatures), nogil=True)(function))
                return kept[0]

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return (kept[0] if kept else compiled())(*arguments)

        return call

    return decorate


def operation(function: Callable[..., Any]) -> Any:
    """What a kernel calls, and `function` makes LLVM code of: without its first argument, numba's typing context."""
    return extending.intrinsic(function)
