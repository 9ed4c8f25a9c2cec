"""Lays a checkpoint out as an official Hugging Face directory: MXFP4 experts, BF16 elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...formats.codecs.encoding import BF16, MXFP4
from ...model.config import CONFIG_FILE
from ...model.layouts import official_shards
from ...model.layouts.hf import INDEX_FILE, NAME, TABLE
from ...model.target_configs import mxfp4_config
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout
from .arrays import encodings_of, planned_arrays, require_all_rows
from .directory import lay_out_directory
from .shards import lay_out_shards
from .small_files import small_files


@dataclass(frozen=True)
class HfTarget:
    """A new directory `out`.

    Args:
        texts: the further files by name (tokenizer, template); those of the checkpoint's tokenizer if None.
        shard_bytes: most tensor bytes per shard, filled in the official order.
    """

    out: Path
    texts: Mapping[str, bytes] | None = None
    shard_bytes: int = official_shards.SHARD_BYTES

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.hf import open_hf

        require_all_rows(checkpoint)
        config = checkpoint.config
        planned = planned_arrays(TABLE, config, encodings_of(checkpoint, experts=MXFP4, others=BF16))
        n_bytes = {name: array.n_bytes for name, array in planned.items()}
        filled = official_shards.shards(config, n_bytes, self.shard_bytes)
        names = [official_shards.shard_name(number, len(filled)) for number in range(len(filled))]
        shards = lay_out_shards(self.out, planned, list(zip(names, filled, strict=True)))
        texts, notes = (
            small_files(checkpoint.tokenizer, config.vocab_size) if self.texts is None else (dict(self.texts), [])
        )
        texts = {
            CONFIG_FILE: mxfp4_config(config.raw),
            INDEX_FILE: official_shards.index_json(shards.weight_map, shards.n_bytes),
            **texts,
        }
        tensors = bind(shards.arrays, TABLE, config, self.out)
        return lay_out_directory(NAME, self.out, shards, texts, tensors, open_hf, notes)
