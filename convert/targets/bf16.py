"""Lays a checkpoint out as a Hugging Face directory of BF16, experts transposed as transformers has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...formats.codecs.encoding import BF16, MXFP4, canonical
from ...model.config import CONFIG_FILE
from ...model.layouts import official_shards
from ...model.layouts.hf import DENSE_TABLE, INDEX_FILE, NAME
from ...model.target_configs import bf16_config
from ..binding import bind
from ..checkpoint import Checkpoint
from ..packed_digests import PACKED_DIGESTS_FILE, packed_digests_bytes, packed_digests_json
from ..plan import Closing, Layout
from .arrays import encodings_of, planned_arrays, require_all_rows
from .directory import lay_out_directory
from .shards import lay_out_shards
from .small_files import small_files

# transformers' save_pretrained fills its files so.
SHARD_BYTES = 5_000_000_000
_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Bf16Target:
    """A new directory `out`, with shards of at most `shard_bytes` of tensors where one tensor is not larger."""

    out: Path
    shard_bytes: int = SHARD_BYTES

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.hf import open_hf

        require_all_rows(checkpoint)
        config = checkpoint.config
        planned = planned_arrays(DENSE_TABLE, config, encodings_of(checkpoint, experts=BF16, others=BF16))
        filled = official_shards.fill(
            planned, {name: array.n_bytes for name, array in planned.items()}, self.shard_bytes
        )
        names = [_file_name(number, len(filled)) for number in range(1, len(filled) + 1)]
        shards = lay_out_shards(self.out, planned, list(zip(names, filled, strict=True)), _METADATA)
        texts, notes = small_files(checkpoint.tokenizer, config.vocab_size)
        texts[CONFIG_FILE] = bf16_config(config.raw)
        if len(names) > 1:
            texts[INDEX_FILE] = official_shards.index_json(shards.weight_map, shards.n_bytes)
        tensors = bind(shards.arrays, DENSE_TABLE, config, self.out)
        closing = _closing(checkpoint, self.out)
        return lay_out_directory(f"{NAME}-bf16", self.out, shards, texts, tensors, open_hf, notes, closing)


def _closing(checkpoint: Checkpoint, out: Path) -> Closing | None:
    """The file with the digests of the experts that are packed in the source, or were before."""
    tensors = checkpoint.tensors
    packed = {name for name, stored in tensors.items() if canonical(stored.encoding) is MXFP4}
    names = [name for name in tensors if name in packed or name in checkpoint.packed_digests]
    if not names:
        return None

    def text(digests: Mapping[str, str]) -> bytes:
        known = checkpoint.packed_digests
        return packed_digests_json({name: digests[name] if name in packed else known[name] for name in names})

    return Closing(out / PACKED_DIGESTS_FILE, packed_digests_bytes(names), text)


def _file_name(number: int, n_files: int) -> str:
    return "model.safetensors" if n_files == 1 else f"model-{number:05d}-of-{n_files:05d}.safetensors"
