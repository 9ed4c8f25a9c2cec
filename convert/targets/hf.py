"""Lays a checkpoint out as an official Hugging Face directory: MXFP4 experts, BF16 elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from ...formats.codecs.encoding import BF16, MXFP4, Encoding
from ...formats.containers.safetensors import build_safetensors_header
from ...model.config import CONFIG_FILE
from ...model.hf_files import official_config
from ...model.layouts import official_shards
from ...model.layouts.hf import INDEX_FILE, NAME, TABLE
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout, OutputFile
from ..stored import StoredArray, StoredTensor
from .arrays import PlannedArray, planned_arrays


@dataclass(frozen=True)
class HfTarget:
    """A new directory `out`. `texts` are further files by name (tokenizer, template); `shard_bytes` as in the plan."""

    out: Path
    texts: Mapping[str, bytes] = field(default_factory=dict)
    shard_bytes: int = official_shards.SHARD_BYTES

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.hf import open_hf

        config = checkpoint.config
        encodings = {name: _encoding(stored) for name, stored in checkpoint.tensors.items()}
        planned = planned_arrays(TABLE, config, encodings)
        dtypes = {name: _dtype(array) for name, array in planned.items()}
        n_bytes = {name: prod(array.shape) * (1 if dtypes[name] == "U8" else 2) for name, array in planned.items()}
        shards = official_shards.shards(config, n_bytes, self.shard_bytes)
        files: list[OutputFile] = []
        arrays: dict[str, StoredArray] = {}
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards):
            path = self.out / official_shards.shard_name(number, len(shards))
            ordered = official_shards.header_order(names, dtypes)
            header, offsets = build_safetensors_header([(name, dtypes[name], planned[name].shape) for name in ordered])
            for name in ordered:
                offset = len(header) + offsets[name]
                arrays[name] = StoredArray(path, name, dtypes[name], planned[name].shape, offset, n_bytes[name])
            weight_map |= dict.fromkeys(names, path.name)
            files.append(OutputFile(path, header, len(header) + sum(n_bytes[name] for name in names)))
        texts = {
            CONFIG_FILE: official_config(config.raw),
            INDEX_FILE: official_shards.index_json(weight_map, sum(n_bytes.values())),
            **self.texts,
        }

        def reopen(paths: Sequence[Path]) -> Checkpoint:
            return open_hf(paths[0].parent)

        return Layout(
            name=NAME,
            files=tuple(files),
            tensors=bind(arrays, TABLE, config, self.out),
            reopen=reopen,
            texts=tuple((self.out / name, text) for name, text in texts.items()),
            atomic_directory=self.out,
        )


def _encoding(stored: StoredTensor) -> Encoding:
    return MXFP4 if stored.tensor.role == "experts" else BF16


def _dtype(array: PlannedArray) -> str:
    return "U8" if array.encoding is MXFP4 else array.encoding.name
