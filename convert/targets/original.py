"""Lays a checkpoint out as OpenAI's `original/` directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...formats.codecs.encoding import BF16, MXFP4
from ...model.config import CONFIG_FILE
from ...model.layouts import official_shards
from ...model.layouts.hf import INDEX_FILE
from ...model.layouts.original import (
    DTYPES_FILE,
    FILE_BYTES,
    NAME,
    ONE_FILE_BYTES,
    TABLE,
    dtypes_json,
    original_config,
)
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout
from .arrays import encodings_of, planned_arrays, require_all_rows
from .directory import lay_out_directory
from .shards import lay_out_shards

_TOKENIZER_NOTE = "original/ has no tokenizer; its readers take that of the Hugging Face directory."


@dataclass(frozen=True)
class OriginalTarget:
    """A new directory `out`: one `model.safetensors`, or `model--0000k-of-0000n.safetensors` and an index.

    Args:
        shard_bytes: most tensor bytes per file; None for the official files.
    """

    out: Path
    shard_bytes: int | None = None

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.original import open_original

        require_all_rows(checkpoint)
        config = checkpoint.config
        planned = planned_arrays(TABLE, config, encodings_of(checkpoint, experts=MXFP4, others=BF16))
        n_bytes = {name: array.n_bytes for name, array in planned.items()}
        official = ONE_FILE_BYTES if sum(n_bytes.values()) <= ONE_FILE_BYTES else FILE_BYTES
        filled = official_shards.fill(sorted(planned), n_bytes, self.shard_bytes or official)
        names = [_file_name(number, len(filled)) for number in range(1, len(filled) + 1)]
        shards = lay_out_shards(self.out, planned, list(zip(names, filled, strict=True)))
        texts = {
            CONFIG_FILE: original_config(config),
            DTYPES_FILE: dtypes_json({name: array.part for name, array in planned.items()}),
        }
        if len(names) > 1:
            texts[INDEX_FILE] = official_shards.index_json(shards.weight_map, shards.n_bytes)
        tensors = bind(shards.arrays, TABLE, config, self.out)
        return lay_out_directory(NAME, self.out, shards, texts, tensors, open_original, (_TOKENIZER_NOTE,))


def _file_name(number: int, n_files: int) -> str:
    """The file's name; the two hyphens are official."""
    return "model.safetensors" if n_files == 1 else f"model--{number:05d}-of-{n_files:05d}.safetensors"
