"""The small files of a Hugging Face directory: carried over as they are, official ones made where they are missing."""

from __future__ import annotations

from collections.abc import Mapping

from ...formats.errors import CheckpointError
from ...model.hf_files import GPT_OSS_20B, generation_config, special_tokens_map, tokenizer_config
from ..checkpoint import Checkpoint

# What is read whole; the official tokenizer.json has 28 MB.
_MAX_BYTES = 128 << 20

_CARRIED = (
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "LICENSE",
    "USAGE_POLICY",
)


def small_files(checkpoint: Checkpoint) -> tuple[dict[str, bytes], list[str]]:
    """The files by name, and notes on what is missing. Raises CheckpointError if one cannot be read whole."""
    texts = _carried(checkpoint)
    made: Mapping[str, bytes] = {}
    if checkpoint.config.vocab_size == GPT_OSS_20B["vocab_size"]:
        made = {
            "generation_config.json": generation_config(),
            "special_tokens_map.json": special_tokens_map(),
            "tokenizer_config.json": tokenizer_config(),
        }
    notes = [
        f"{name} is not in the source and was not made: copy it from the official repository, or use --tokenizer."
        for name in ("tokenizer.json", "chat_template.jinja")
        if name not in texts
    ]
    return {**made, **texts}, notes


def _carried(checkpoint: Checkpoint) -> dict[str, bytes]:
    texts: dict[str, bytes] = {}
    if checkpoint.directory is None:
        return texts
    for name in _CARRIED:
        path = checkpoint.directory / name
        if not path.is_file():
            continue
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError("the file is too large", file=path, expected=f"at most {_MAX_BYTES:,} bytes")
        texts[name] = path.read_bytes()
    return texts
