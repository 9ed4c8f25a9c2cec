"""What ggml itself reads from a GGUF file, through the C API that the xllamacpp wheel exports.

As a script, `ggml_gguf.py FILE...` prints one JSON line per file (`null` if ggml refuses it): a crash or an abort of
the C code then costs a subprocess, and shows as a missing line.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

STRING, ARRAY = 8, 9
_GETTERS = {  # value type -> the suffix of its getter, and what it returns
    0: ("u8", ctypes.c_uint8),
    1: ("i8", ctypes.c_int8),
    2: ("u16", ctypes.c_uint16),
    3: ("i16", ctypes.c_int16),
    4: ("u32", ctypes.c_uint32),
    5: ("i32", ctypes.c_int32),
    6: ("f32", ctypes.c_float),
    7: ("bool", ctypes.c_bool),
    8: ("str", ctypes.c_char_p),
    10: ("u64", ctypes.c_uint64),
    11: ("i64", ctypes.c_int64),
    12: ("f64", ctypes.c_double),
}


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


@cache
def library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    path = next(p for p in Path(spec.origin).parent.iterdir() if p.suffix in (".so", ".pyd"))
    lib = ctypes.CDLL(str(path))
    pointer, i64, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
    for name, result, arguments in (
        ("gguf_init_from_file", pointer, [ctypes.c_char_p, _InitParams]),
        ("gguf_free", None, [pointer]),
        ("gguf_get_version", ctypes.c_uint32, [pointer]),
        ("gguf_get_alignment", size, [pointer]),
        ("gguf_get_data_offset", size, [pointer]),
        ("gguf_get_n_kv", i64, [pointer]),
        ("gguf_get_key", ctypes.c_char_p, [pointer, i64]),
        ("gguf_get_kv_type", ctypes.c_int, [pointer, i64]),
        ("gguf_get_arr_type", ctypes.c_int, [pointer, i64]),
        ("gguf_get_arr_n", size, [pointer, i64]),
        ("gguf_get_arr_str", ctypes.c_char_p, [pointer, i64, size]),
        ("gguf_get_arr_data", pointer, [pointer, i64]),
        ("gguf_get_n_tensors", i64, [pointer]),
        ("gguf_get_tensor_name", ctypes.c_char_p, [pointer, i64]),
        ("gguf_get_tensor_ne", ctypes.POINTER(i64), [pointer, i64]),
        ("gguf_get_tensor_type", ctypes.c_int, [pointer, i64]),
        ("gguf_get_tensor_offset", size, [pointer, i64]),
        ("gguf_get_tensor_size", size, [pointer, i64]),
        ("ggml_type_name", ctypes.c_char_p, [ctypes.c_int]),
        ("ggml_blck_size", i64, [ctypes.c_int]),
        ("ggml_type_size", size, [ctypes.c_int]),
        *((f"gguf_get_val_{suffix}", kind, [pointer, i64]) for suffix, kind in _GETTERS.values()),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def ggml_read(path: str | Path) -> dict[str, Any] | None:
    """The header as ggml has it; None if ggml refuses the file. Strings are latin-1 views of their bytes."""
    lib = library()
    context = lib.gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    if not context:
        return None
    try:
        return {
            "version": lib.gguf_get_version(context),
            "alignment": lib.gguf_get_alignment(context),
            "data_offset": lib.gguf_get_data_offset(context),
            "kv": [_read_kv(lib, context, i) for i in range(lib.gguf_get_n_kv(context))],
            "tensors": [_read_tensor(lib, context, i) for i in range(lib.gguf_get_n_tensors(context))],
        }
    finally:
        lib.gguf_free(context)


def _read_kv(lib: ctypes.CDLL, context: int, i: int) -> list[Any]:
    """key, type, element type or None, value."""
    key, value_type = lib.gguf_get_key(context, i).decode("latin-1"), lib.gguf_get_kv_type(context, i)
    if value_type != ARRAY:
        value = getattr(lib, f"gguf_get_val_{_GETTERS[value_type][0]}")(context, i)
        return [key, value_type, None, value.decode("latin-1") if value_type == STRING else value]
    element_type, n = lib.gguf_get_arr_type(context, i), lib.gguf_get_arr_n(context, i)
    if element_type == STRING:
        return [key, ARRAY, STRING, [lib.gguf_get_arr_str(context, i, j).decode("latin-1") for j in range(n)]]
    elements = (_GETTERS[element_type][1] * n).from_address(lib.gguf_get_arr_data(context, i)) if n else []
    return [key, ARRAY, element_type, list(elements)]


def _read_tensor(lib: ctypes.CDLL, context: int, i: int) -> list[Any]:
    """name, type id, ne (always four), offset from the start of the data, bytes."""
    return [
        lib.gguf_get_tensor_name(context, i).decode("latin-1"),
        lib.gguf_get_tensor_type(context, i),
        lib.gguf_get_tensor_ne(context, i)[:4],
        lib.gguf_get_tensor_offset(context, i),
        lib.gguf_get_tensor_size(context, i),
    ]


def ggml_read_all(paths: Sequence[Path]) -> list[dict[str, Any] | None]:
    """`ggml_read` of every file, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__],
        input="\n".join(map(str, paths)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), f"ggml died on {paths[len(lines)]}: exit {done.returncode}"
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    for line in sys.stdin.read().splitlines():
        sys.stdout.write(json.dumps(ggml_read(line)) + "\n")
        sys.stdout.flush()
