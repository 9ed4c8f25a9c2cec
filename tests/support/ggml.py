"""ggml's own MXFP4 codec, through the C API that the xllamacpp wheel exports: an oracle that shares no code with ours.

A block is 17 bytes, scale first; 32 elements.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_cpu_init": (None, []),
    "dequantize_row_mxfp4": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]),
    "quantize_row_mxfp4_ref": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]),
}


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise RuntimeError("xllamacpp is not installed; run `make test`, which installs it")
    path = next(p for p in Path(spec.origin).parent.iterdir() if p.suffix in (".so", ".pyd"))
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise RuntimeError(f"{path.name} does not export {name}; use the xllamacpp of constraints.txt") from None
        function.restype, function.argtypes = result, arguments
    library.ggml_cpu_init()
    return library


def dequantize_mxfp4(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ggml decodes: float32 [n, 32] from uint8 [n, 17]."""
    data = np.ascontiguousarray(data)
    assert data.shape == (len(data), 17)
    values = np.empty((len(data), 32), np.float32)
    _library().dequantize_row_mxfp4(data.ctypes.data, values.ctypes.data, values.size)
    return values


def quantize_mxfp4(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What ggml's reference quantizer encodes: uint8 [n, 17] from float32 [n, 32]."""
    values = np.ascontiguousarray(values)
    assert values.shape == (len(values), 32)
    data = np.empty((len(values), 17), np.uint8)
    _library().quantize_row_mxfp4_ref(values.ctypes.data, data.ctypes.data, values.size)
    return data
