"""Lays a checkpoint out as an official Hugging Face directory: MXFP4 experts, BF16 elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...formats.codecs.encoding import BF16, MXFP4
from ...model.config import CONFIG_FILE
from ...model.hf_files import official_config
from ...model.layouts import official_shards
from ...model.layouts.hf import INDEX_FILE, NAME, TABLE
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout
from .arrays import packed_encodings, planned_arrays
from .shards import bytes_of, lay_out_shards
from .small_files import small_files


@dataclass(frozen=True)
class HfTarget:
    """A new directory `out`.

    Args:
        texts: the further files by name (tokenizer, template); those of the checkpoint's directory if None.
        shard_bytes: most tensor bytes per shard, filled in the official order.
    """

    out: Path
    texts: Mapping[str, bytes] | None = None
    shard_bytes: int = official_shards.SHARD_BYTES

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.hf import open_hf

        config = checkpoint.config
        planned = planned_arrays(TABLE, config, packed_encodings(checkpoint, experts=MXFP4, others=BF16))
        filled = official_shards.shards(
            config, {name: bytes_of(array) for name, array in planned.items()}, self.shard_bytes
        )
        names = [official_shards.shard_name(number, len(filled)) for number in range(len(filled))]
        shards = lay_out_shards(self.out, planned, list(zip(names, filled, strict=True)))
        weight_map = {name: file for file, members in zip(names, filled, strict=True) for name in members}
        texts, notes = (dict(self.texts), []) if self.texts is not None else small_files(checkpoint)
        texts = {
            CONFIG_FILE: official_config(config.raw),
            INDEX_FILE: official_shards.index_json(weight_map, shards.n_bytes),
            **texts,
        }

        def reopen(paths: Sequence[Path]) -> Checkpoint:
            return open_hf(paths[0].parent)

        return Layout(
            name=NAME,
            files=shards.files,
            tensors=bind(shards.arrays, TABLE, config, self.out),
            reopen=reopen,
            texts=tuple((self.out / name, text) for name, text in texts.items()),
            notes=tuple(notes),
            atomic_directory=self.out,
        )
