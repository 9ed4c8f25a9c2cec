"""Opens GGUF files in llama.cpp's gpt-oss layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...formats.containers.gguf_reader import GgufFile
from ...formats.containers.gguf_split import read_gguf_shards
from ...formats.errors import CheckpointError
from ...model.config import GptOssConfig
from ...model.layouts import gguf
from ...model.layouts.gguf_metadata import kv_to_config
from ..binding import bind
from ..checkpoint import Checkpoint
from ..stored import StoredArray

MAGIC = b"GGUF"


def recognises_gguf(path: Path) -> bool:
    """True if the file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in the file `path`, or in the split files it begins. Raises GgufError, CheckpointError."""
    return _checkpoint(path, read_gguf_shards(path), None)


def open_gguf_files(paths: Sequence[Path], config: GptOssConfig) -> Checkpoint:
    """The checkpoint in exactly these files, in shard order, which must hold the tensors of `config`."""
    return _checkpoint(paths[0], read_gguf_shards(paths=paths), config)


def _checkpoint(path: Path, shards: Sequence[GgufFile], config: GptOssConfig | None) -> Checkpoint:
    arrays = {
        tensor.name: StoredArray(shard.path, tensor.name, tensor.type.name, tensor.shape, tensor.offset, tensor.n_bytes)
        for shard in shards
        for tensor in shard.tensors.values()
    }
    config = config or kv_to_config(shards[0].kv, _vocab_size(arrays, path), path)
    return Checkpoint(
        path=path,
        layout=gguf.NAME,
        config=config,
        tensors=bind(arrays, gguf.TABLE, config, path),
        arrays=tuple(arrays.values()),
        files=tuple(shard.path for shard in shards),
        gguf=shards[0],
    )


def _vocab_size(arrays: dict[str, StoredArray], path: Path) -> int:
    name = gguf.TABLE["embedding.weight"].name
    if name not in arrays:
        raise CheckpointError("the tensor is missing", file=path, tensor=name)
    return arrays[name].shape[0]
