"""ggml's own block codecs, through the C API that the xllamacpp wheel exports: an oracle that shares no code with ours.

An MXFP4 block is 17 bytes, scale first; 32 elements. Other types are asked for by name.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

_DEQUANTIZE = {
    name: f"dequantize_row_{name.lower().replace('_k', '_K')}"
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
}
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_cpu_init": (None, []),
    "dequantize_row_mxfp4": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]),
    "quantize_row_mxfp4_ref": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]),
    "ggml_blck_size": (ctypes.c_int64, [ctypes.c_int]),
    "ggml_type_size": (ctypes.c_size_t, [ctypes.c_int]),
    "ggml_validate_row_data": (ctypes.c_bool, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p],
    ),
    **{function: (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]) for function in _DEQUANTIZE.values()},
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


def block_size(type_name: str) -> tuple[int, int]:
    """How many elements and how many bytes a block of ggml's type has."""
    number = GGMLQuantizationType[type_name]
    return _library().ggml_blck_size(number), _library().ggml_type_size(number)


def dequantize(type_name: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ggml decodes: float32 [n, block elements] from uint8 [n, block bytes]."""
    elements, n_bytes = block_size(type_name)
    data = np.ascontiguousarray(data)
    assert data.shape == (len(data), n_bytes)
    values = np.empty((len(data), elements), np.float32)
    getattr(_library(), _DEQUANTIZE[type_name])(data.ctypes.data, values.ctypes.data, values.size)
    return values


def quantize(type_name: str, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What ggml's quantizer encodes, without an importance matrix: uint8 [n, block bytes]."""
    elements, n_bytes = block_size(type_name)
    values = np.ascontiguousarray(values)
    assert values.shape == (len(values), elements)
    data = np.empty((len(values), n_bytes), np.uint8)
    number = GGMLQuantizationType[type_name]
    written = _library().ggml_quantize_chunk(
        number, values.ctypes.data, data.ctypes.data, 0, len(values), elements, None
    )
    assert written == data.nbytes
    return data


def is_valid(type_name: str, data: NDArray[np.uint8]) -> bool:
    """Whether ggml's validation accepts these blocks. It says on stderr why not."""
    data = np.ascontiguousarray(data)
    valid: bool = _library().ggml_validate_row_data(GGMLQuantizationType[type_name], data.ctypes.data, data.nbytes)
    return valid
