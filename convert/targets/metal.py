"""Lays a checkpoint out as OpenAI's Metal model file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...formats.containers.metal import build_metal_header
from ...formats.errors import TokenizerError
from ...model.config import GptOssConfig
from ...model.layouts.metal import NAME, TABLE, relabelled, weights_bytes
from ...model.layouts.metal_metadata import config_to_fields, kernel_warnings
from ...model.metal_tokenizer import dropped_tokens, to_metal_tokenizer
from ...model.tokenizer import Tokenizer
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout, OutputFile
from ..stored import StoredTensor

_NO_TEMPLATE_NOTE = "A Metal file has no chat template: programs that run it have Harmony built in."


@dataclass(frozen=True)
class MetalTarget:
    """A file at `out`. Rows of the embeddings after the 16th special token have no place in it."""

    out: Path

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        from ..sources.metal import open_metal, stored_arrays

        config = checkpoint.config
        tokenizer = _tokenizer(checkpoint)
        header_tokenizer = to_metal_tokenizer(tokenizer, config.vocab_size)
        n_tokens = header_tokenizer.n_tokens
        fields = config_to_fields(config)
        header = build_metal_header(fields, header_tokenizer)
        arrays = stored_arrays(self.out, fields, n_tokens, len(header))
        kept_config = replace(config, vocab_size=n_tokens)
        relabel = partial(relabelled, head_dim=config.head_dim)
        return Layout(
            name=NAME,
            files=(OutputFile(self.out, header, len(header) + weights_bytes(fields, n_tokens)),),
            tensors=bind(arrays, TABLE, kept_config, self.out, relabel=relabel),
            reopen=lambda paths: open_metal(paths[0]),
            notes=(*_dropped_note(tokenizer, config, n_tokens), *kernel_warnings(fields), _NO_TEMPLATE_NOTE),
            kept={name: _kept(stored, config, n_tokens) for name, stored in checkpoint.tensors.items()},
        )


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.tokenizer is None:
        raise TokenizerError(
            "the checkpoint has no tokenizer, and a Metal file must have one",
            file=checkpoint.path,
            expected="tokenizer.json in the parent directory",
            remedy="Give the directory that holds it with --tokenizer.",
        )
    return checkpoint.tokenizer.tokenizer(checkpoint.config.vocab_size)


def _kept(stored: StoredTensor, config: GptOssConfig, n_tokens: int) -> StoredTensor:
    """The tensor; of an embedding the rows that the file keeps."""
    if stored.tensor.role not in ("embedding", "unembedding") or n_tokens == config.vocab_size:
        return stored
    tensor = replace(stored.tensor, shape=(n_tokens, stored.tensor.cols))
    dropped = config.vocab_size - n_tokens
    spans = tuple(replace(span, matrix_rows=n_tokens, padding=max(0, span.padding - dropped)) for span in stored.spans)
    return StoredTensor(tensor, stored.encoding, spans)


def _dropped_note(tokenizer: Tokenizer, config: GptOssConfig, n_tokens: int) -> list[str]:
    n_rows = config.vocab_size - n_tokens
    if not n_rows:
        return []
    tokens = ", ".join(dropped_tokens(tokenizer).values())
    return [
        f"A Metal file ends its embeddings with the last token it knows: {n_rows:,} rows of each are left out, those "
        f"of {tokens} and those without a token. The way back cannot restore them."
    ]
