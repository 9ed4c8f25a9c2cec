"""Opens GGUF files of gpt-oss: llama.cpp's and Ollama's dialect, whole or split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...formats.containers.gguf_reader import GgufFile
from ...formats.containers.gguf_split import read_gguf_shards
from ...formats.errors import CheckpointError
from ...model.config import GptOssConfig
from ...model.layouts import gguf, ollama
from ...model.layouts.gguf_metadata import OLLAMA_LEGACY, dialect_of, kv_to_config, truncate_is_stored
from ..binding import RELOAD, bind
from ..checkpoint import Checkpoint
from ..stored import StoredArray
from ..tokenizers import DirectoryTokenizer, gguf_tokenizer

MAGIC = b"GGUF"

_TRUNCATE_NOTE = (
    "The file does not say whether YaRN is truncated; {} is taken, as in the model it must have been made of."
)
_LEGACY_NOTE = (
    "The file is in Ollama's dialect of 2025: names, keys and block types are repaired, blocks keep their bytes."
)


def recognises_gguf(path: Path) -> bool:
    """True if the file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_gguf(path: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The checkpoint in the file `path`, or in the split files it begins. Raises GgufError, CheckpointError."""
    return _checkpoint(path, read_gguf_shards(path), None, tokenizer)


def open_gguf_files(paths: Sequence[Path], config: GptOssConfig) -> Checkpoint:
    """The checkpoint in exactly these files, in shard order, which must hold the tensors of `config`."""
    return _checkpoint(paths[0], read_gguf_shards(paths=paths), config, None)


def _checkpoint(
    path: Path, shards: Sequence[GgufFile], config: GptOssConfig | None, tokenizer: Path | None
) -> Checkpoint:
    arrays = {
        tensor.name: StoredArray(shard.path, tensor.name, tensor.type.name, tensor.shape, tensor.offset, tensor.n_bytes)
        for shard in shards
        for tensor in shard.tensors.values()
    }
    kv = shards[0].kv
    legacy = dialect_of(kv, path) is OLLAMA_LEGACY
    layout, other = (ollama, gguf) if legacy else (gguf, ollama)
    config = config or kv_to_config(kv, _vocab_size(arrays, path), path)
    name = kv["general.name"].value if "general.name" in kv else None
    return Checkpoint(
        path=path,
        layout=layout.NAME,
        config=config,
        tensors=bind(arrays, layout.TABLE, config, path, layout.VARIANTS, elsewhere=(other.TABLE, other.VARIANTS)),
        arrays=tuple(arrays.values()),
        files=tuple(shard.path for shard in shards),
        tokenizer=DirectoryTokenizer(tokenizer) if tokenizer else gguf_tokenizer(kv, path),
        model_name=name if isinstance(name, str) else None,
        notes=(
            *([_LEGACY_NOTE] if legacy else []),
            *([] if truncate_is_stored(kv) else [_TRUNCATE_NOTE.format(f"truncate: {config.yarn.truncate}".lower())]),
        ),
    )


def _vocab_size(arrays: dict[str, StoredArray], path: Path) -> int:
    name = gguf.TABLE["embedding.weight"].name
    if name not in arrays:
        raise CheckpointError("the tensor is missing", file=path, tensor=name, remedy=RELOAD)
    return arrays[name].shape[0]
