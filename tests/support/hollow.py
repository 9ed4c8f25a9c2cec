"""Checkpoints without weights: the arrays' names, types and shapes of a real one, changed, and zeros behind them.

Enough for all that is refused before a weight is read, and quick to write: files are sparse where the disk can.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from checkpoints import INDEX
from gguf_files import write_plan

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_split import SPLIT_TENSORS, shard_paths
from gptoss_convert.formats.containers.gguf_types import GGML_TYPES
from gptoss_convert.formats.containers.gguf_writer import i32, plan_gguf

_ELEMENT_BYTES = {"U8": 1, "I8": 1, "BF16": 2, "F16": 2, "I16": 2, "F32": 4, "U32": 4, "I32": 4}
_GGML_TYPES = {ggml_type.name: ggml_type for ggml_type in GGML_TYPES.values()}


@dataclass
class Entry:
    """An array as a header has it; the shape as numpy has it."""

    file: str
    dtype: str
    shape: tuple[int, ...]


Entries = dict[str, Entry]
Change = Callable[[Entries], object]


def hollow(source: Path, out: Path, change: Change) -> Path:
    """What `source`, a directory of safetensors or a GGUF file, is after `change`, in the new directory `out`."""
    return _hollow_directory(source, out, change) if source.is_dir() else _hollow_gguf(source, out, change)


def entries(source: Path) -> Entries:
    """Every array of `source` by name."""
    found: Entries = {}
    for path in sorted(source.glob("*.safetensors")) if source.is_dir() else _shards(source):
        found |= _safetensors_entries(path) if source.is_dir() else _gguf_entries(path)
    return found


def _hollow_directory(source: Path, out: Path, change: Change) -> Path:
    found = entries(source)
    change(found)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", INDEX))
    for file in {entry.file for entry in found.values()}:
        header, end = {}, 0
        for name, entry in found.items():
            if entry.file == file:
                begin, end = end, end + prod(entry.shape) * _ELEMENT_BYTES[entry.dtype]
                header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        with (out / file).open("wb") as shard:
            shard.write(struct.pack("<Q", len(text)) + text)
            shard.truncate(8 + len(text) + end)
    weight_map = {name: entry.file for name, entry in found.items()}
    (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return out


def _hollow_gguf(source: Path, out: Path, change: Change) -> Path:
    found = entries(source)
    change(found)
    out.mkdir()
    for path in _shards(source):
        kv = read_gguf(path).kv
        if SPLIT_TENSORS in kv:
            kv = kv | {SPLIT_TENSORS: i32(len(found))}
        tensors = [
            (name, _GGML_TYPES[entry.dtype], entry.shape) for name, entry in found.items() if entry.file == path.name
        ]
        write_plan(out / path.name, plan_gguf(kv, tensors))
    return out / source.name


def _shards(gguf: Path) -> list[Path]:
    """The file, or all files of the model it begins."""
    count = read_gguf(gguf).kv.get("split.count")
    return [gguf] if count is None else shard_paths(gguf, int(count.value))


def _safetensors_entries(path: Path) -> Entries:
    with path.open("rb") as file:
        (n_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n_bytes))
    header.pop("__metadata__", None)
    return {name: Entry(path.name, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


def _gguf_entries(path: Path) -> Entries:
    tensors = read_gguf(path).tensors.values()
    return {tensor.name: Entry(path.name, tensor.type.name, tensor.shape) for tensor in tensors}
