"""Small GGUF files for tests: a plan put on disk, and the same model as gguf-py writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from gptoss_convert.formats.containers.gguf_reader import GgufFile
from gptoss_convert.formats.containers.gguf_writer import GgufPlan, plan_gguf

MXFP4_ROWS = np.arange(2 * 3 * 34, dtype=np.uint8).reshape(2, 3, 34)  # 2 x 3 rows of 64 elements
NORM = np.arange(5, dtype=np.float32)
BF16_ROWS = np.arange(3 * 7, dtype=np.uint16).reshape(3, 7)


def write_plan(path: Path, plan: GgufPlan, data: Mapping[str, NDArray[np.generic]] | None = None) -> Path:
    """The planned file, as any caller is to write it; tensors without `data` stay zero."""
    with path.open("wb") as file:
        file.truncate(plan.file_bytes)
        file.write(plan.header)
        for name, array in (data or {}).items():
            assert plan.tensors[name].n_bytes == array.nbytes
            file.seek(plan.tensors[name].offset)
            file.write(array.tobytes())
    return path


def stored_bytes(file: GgufFile, name: str) -> bytes:
    tensor = file.tensors[name]
    with file.path.open("rb") as handle:
        handle.seek(tensor.offset)
        data: bytes = handle.read(tensor.n_bytes)
    return data


def replan(file: GgufFile) -> GgufPlan:
    """The plan of a file with the same content."""
    tensors = [(t.name, t.type, t.shape) for t in file.tensors.values()]
    return plan_gguf(file.kv, tensors, alignment=file.alignment)


def write_with_gguf_py(path: Path, *, split_max_tensors: int = 0) -> None:
    """A file with every kind of metadata value and three tensors, perhaps split."""
    writer = gguf.GGUFWriter(path, "test", split_max_tensors=split_max_tensors)
    writer.add_uint8("v.u8", 255)
    writer.add_int8("v.i8", -128)
    writer.add_uint16("v.u16", 65535)
    writer.add_int16("v.i16", -32768)
    writer.add_uint32("v.u32", 2**32 - 1)
    writer.add_int32("v.i32", -(2**31))
    writer.add_uint64("v.u64", 2**64 - 1)
    writer.add_int64("v.i64", -(2**63))
    writer.add_float32("v.f32", 1e-5)
    writer.add_float64("v.f64", 1e-5)
    writer.add_bool("v.true", True)
    writer.add_bool("v.false", False)
    writer.add_string("v.string", "naïve Ġ\n🙂")
    writer.add_array("v.strings", ["a", "", "é", "x" * 1000])
    writer.add_array("v.i32s", [-1, 0, 2**31 - 1])
    writer.add_array("v.f32s", [0.5, -2.0])
    writer.add_array("v.bools", [True, False])
    writer.add_tensor("experts.weight", MXFP4_ROWS, raw_dtype=gguf.GGMLQuantizationType.MXFP4)
    writer.add_tensor("norm.weight", NORM)
    writer.add_tensor("q.weight", BF16_ROWS.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
