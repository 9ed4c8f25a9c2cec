"""Opens OpenAI's Metal model file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...formats.containers.metal import read_metal
from ...formats.containers.metal_types import MAGIC, MetalFields, MetalFile
from ...formats.errors import MetalError
from ...model.config import GptOssConfig, parse_config
from ...model.hf_files import GPT_OSS_20B
from ...model.layouts.metal import (
    NAME,
    TABLE,
    MetalArray,
    gaps,
    metal_arrays,
    relabelled,
    require_size,
    usual_vocab_size,
)
from ...model.layouts.metal_metadata import fields_to_config
from ...model.tokenizer_files import TokenizerFacts
from ..binding import bind
from ..checkpoint import Checkpoint
from ..stored import StoredArray, StoredTensor
from ..tokenizers import DirectoryTokenizer, MetalHeaderTokenizer, TokenizerSource

_FAMILY = MAGIC[:9]
_EMBEDDINGS = ("embedding.weight", "unembedding.weight")


def recognises_metal(path: Path) -> bool:
    """True if the file begins as Metal model files do, of any version."""
    with path.open("rb") as file:
        return file.read(len(_FAMILY)) == _FAMILY


def open_metal(path: Path, tokenizer: Path | None = None, *, pad_vocab: bool = False) -> Checkpoint:
    """The checkpoint in the file `path`. With `pad_vocab` the embeddings get rows of zeros after their last token.

    Raises:
        MetalError, CheckpointError: it is damaged, or no gpt-oss.
    """
    file = read_metal(path)
    require_size(file)
    n_tokens = file.tokenizer.n_tokens
    config = fields_to_config(file.fields, n_tokens, path)
    _require_zero_gaps(file, metal_arrays(file.fields, n_tokens))
    arrays = stored_arrays(path, file.fields, n_tokens, file.weights_offset)
    tensors = bind(arrays, TABLE, config, path, relabel=partial(relabelled, head_dim=config.head_dim))
    source: TokenizerSource = DirectoryTokenizer(tokenizer) if tokenizer else MetalHeaderTokenizer(file)
    lost_rows, notes = usual_vocab_size(n_tokens) - n_tokens, []
    if pad_vocab and lost_rows:
        tensors |= {name: _padded(tensors[name], lost_rows) for name in _EMBEDDINGS}
        notes = [f"The file holds {n_tokens:,} rows of each embedding: {lost_rows:,} rows of zeros are added."]
        n_tokens, lost_rows = n_tokens + lost_rows, 0
    return Checkpoint(
        path=path,
        layout=NAME,
        config=_full_config(config, n_tokens, source.facts(), path),
        tensors=tensors,
        arrays=tuple(arrays.values()),
        files=(path,),
        tokenizer=source,
        notes=tuple(notes),
        lost_rows=lost_rows,
    )


def stored_arrays(path: Path, fields: MetalFields, n_tokens: int, weights_offset: int) -> dict[str, StoredArray]:
    """Where each array lies in the file, by name; those of experts are one array each. Raises MetalError."""
    arrays: dict[str, StoredArray] = {}
    for array in metal_arrays(fields, n_tokens):
        for part, (offset, n_bytes) in enumerate(array.pieces()):
            name = f"{array.name}[{part}]" if array.is_of_experts else array.name
            shape = array.shape[1:] if array.is_of_experts else array.shape
            arrays[name] = StoredArray(path, name, array.dtype, shape, weights_offset + offset, n_bytes)
    return arrays


def _full_config(config: GptOssConfig, vocab_size: int, facts: TokenizerFacts, path: Path) -> GptOssConfig:
    """The config with all keys of the official one; those that the header does not say are taken from there."""
    theta = config.rope_theta
    said: dict[str, Any] = {
        **config.raw,
        "vocab_size": vocab_size,
        "experts_per_token": config.num_experts_per_tok,
        "initial_context_length": config.yarn.original_max_position_embeddings,
        "rope_theta": int(theta) if theta == int(theta) else theta,
    }
    ids = {"eos_token_id": facts.eos.id, "pad_token_id": facts.pad.id}
    said |= {key: token_id for key, token_id in ids.items() if token_id is not None}
    return parse_config(GPT_OSS_20B | said, path)


def _padded(stored: StoredTensor, n_rows: int) -> StoredTensor:
    rows, cols = stored.tensor.shape[0] + n_rows, stored.tensor.cols
    (span,) = stored.spans
    padded = replace(span, matrix_rows=rows, pitch=rows, padding=n_rows)
    return StoredTensor(replace(stored.tensor, shape=(rows, cols)), stored.encoding, (padded,))


def _require_zero_gaps(file: MetalFile, arrays: list[MetalArray]) -> None:
    """Raises MetalError if there is anything between the arrays: no byte may be lost silently."""
    with file.path.open("rb") as handle:
        for offset, n_bytes in gaps(arrays):
            handle.seek(file.weights_offset + offset)
            if any(handle.read(n_bytes)):
                raise MetalError(
                    "the padding between two arrays is not zero",
                    file=file.path,
                    expected="zeros",
                    found=f"other bytes from byte {file.weights_offset + offset:,} on",
                    remedy="The file is damaged: download it again.",
                )
