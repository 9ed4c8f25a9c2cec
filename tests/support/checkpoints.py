"""Copies of a checkpoint, and ways to damage them. Reads and writes safetensors on its own."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

INDEX = "model.safetensors.index.json"

# Tensors of the `tiny` demo that damage is done to.
EMBEDDING = "model.embed_tokens.weight"
ROUTER = "model.layers.0.mlp.router.weight"
BLOCKS = "model.layers.2.mlp.experts.gate_up_proj_blocks"
SCALES = "model.layers.2.mlp.experts.gate_up_proj_scales"
HIDDEN, SCALE_SHAPE = 192, (8, 320, 6)


@dataclass
class Tensor:
    """A stored tensor with its bytes and the shard it lies in."""

    shard: str
    dtype: str
    shape: list[int]
    data: bytes


Tensors = dict[str, Tensor]


def copy_of(checkpoint: Path, directory: Path) -> Path:
    """A copy of the checkpoint, free to be damaged."""
    return Path(shutil.copytree(checkpoint, directory))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Writes the JSON file back after `change` was applied to its content."""
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def read_tensors(checkpoint: Path) -> Tensors:
    """Every tensor of every shard, by name."""
    tensors: Tensors = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            header, start = _header(file)
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                file.seek(start + begin)
                tensors[name] = Tensor(path.name, entry["dtype"], entry["shape"], file.read(end - begin))
    return tensors


def edit_tensors(checkpoint: Path, change: Callable[[Tensors], object]) -> None:
    """Writes shards and index anew after `change` was applied to the tensors; both agree again."""
    tensors = read_tensors(checkpoint)
    change(tensors)
    for path in checkpoint.glob("*.safetensors"):
        path.unlink()
    for shard in {tensor.shard for tensor in tensors.values()}:
        _write_shard(checkpoint / shard, {name: one for name, one in tensors.items() if one.shard == shard})
    index = {
        "metadata": {"total_size": sum(len(tensor.data) for tensor in tensors.values())},
        "weight_map": {name: tensor.shard for name, tensor in tensors.items()},
    }
    (checkpoint / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _write_shard(path: Path, tensors: Tensors) -> None:
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors.values()))


def patch(checkpoint: Path, tensor: str, offset: int, data: bytes) -> Path:
    """Overwrites bytes of a stored tensor in place, `offset` bytes into it; returns its shard."""
    path = checkpoint / json.loads((checkpoint / INDEX).read_bytes())["weight_map"][tensor]
    with path.open("r+b") as file:
        header, start = _header(file)
        begin, end = header[tensor]["data_offsets"]
        assert begin + offset + len(data) <= end
        file.seek(start + begin + offset)
        file.write(data)
    return path


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The entries, and where the data starts."""
    (n_bytes,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(n_bytes))
    header.pop("__metadata__", None)
    return header, 8 + n_bytes


@contextmanager
def nothing_left_in(directory: Path) -> Iterator[None]:
    """Fails if the directory's entries or their bytes are others afterwards: no output, no .partial, no lock."""
    before = _contents(directory)
    yield
    assert _contents(directory) == before


def _contents(directory: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}
