"""Lays a checkpoint out for mlx-lm: MXFP4 experts with gate and up apart, BF16 elsewhere; the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...formats.codecs.encoding import BF16, MXFP4
from ...model.config import CONFIG_FILE
from ...model.layouts import official_shards
from ...model.layouts.hf import INDEX_FILE
from ...model.layouts.mlx import METADATA, NAME, SHARD_BYTES, TABLE, shard_name
from ...model.target_configs import mlx_config
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout
from .arrays import encodings_of, planned_arrays, require_all_rows
from .directory import lay_out_directory
from .shards import lay_out_shards
from .small_files import small_files


@dataclass(frozen=True)
class MlxTarget:
    """A new directory `out`, with shards of at most `shard_bytes` of tensors."""

    out: Path
    shard_bytes: int = SHARD_BYTES

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.hf import open_hf

        require_all_rows(checkpoint)
        config = checkpoint.config
        planned = planned_arrays(TABLE, config, encodings_of(checkpoint, experts=MXFP4, others=BF16))
        filled = official_shards.fill(
            planned, {name: array.n_bytes for name, array in planned.items()}, self.shard_bytes
        )
        names = [shard_name(number, len(filled)) for number in range(1, len(filled) + 1)]
        shards = lay_out_shards(self.out, planned, list(zip(names, filled, strict=True)), METADATA)
        texts, notes = small_files(checkpoint.tokenizer, config.vocab_size)
        total = {"total_size": shards.n_bytes, "total_parameters": checkpoint.n_parameters}
        index = {"metadata": total, "weight_map": dict(sorted(shards.weight_map.items()))}
        texts |= {CONFIG_FILE: mlx_config(config.raw), INDEX_FILE: json.dumps(index, indent=4).encode()}
        tensors = bind(shards.arrays, TABLE, config, self.out)
        return lay_out_directory(NAME, self.out, shards, texts, tensors, open_hf, notes)
