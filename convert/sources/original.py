"""Opens OpenAI's `original/` layout: config.json without architectures, one shard or seven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...formats.errors import ConfigError
from ...formats.json_text import read_json_file
from ...model.config import CONFIG_FILE, MAX_CONFIG_BYTES
from ...model.layouts import original
from ...model.tokenizer_files import read_special_token_facts
from ..binding import bind
from ..checkpoint import Checkpoint
from ..tokenizers import DirectoryTokenizer
from .arrays import read_arrays

TOKENIZER_FILE = "tokenizer.json"


def recognises_original(directory: Path) -> bool:
    """True if the directory's config is spelled as in `original/`."""
    path = directory / CONFIG_FILE
    return path.is_file() and original.recognises_config(_read_config(path))


def open_original(directory: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The checkpoint in `directory`. The tokenizer is that of `tokenizer`, else of the parent directory if it has one.

    Raises:
        CheckpointError, SafetensorsError: it is damaged or incomplete.
    """
    path = directory / CONFIG_FILE
    parent = directory.absolute().parent
    if tokenizer is None and (parent / TOKENIZER_FILE).is_file():
        tokenizer = parent
    config = original.parse_original_config(_read_config(path), path, _special_ids(tokenizer))
    found = read_arrays(directory)
    return Checkpoint(
        path=directory,
        layout=original.NAME,
        config=config,
        tensors=bind(found.arrays, original.TABLE, config, directory),
        arrays=tuple(found.arrays.values()),
        files=found.files,
        tokenizer=DirectoryTokenizer(tokenizer) if tokenizer else None,
    )


def _special_ids(tokenizer: Path | None) -> dict[str, int]:
    """The ids that the HF config names and `original/` does not."""
    if tokenizer is None:
        return {}
    facts = read_special_token_facts(tokenizer)
    ids = {"eos_token_id": facts.eos.id, "pad_token_id": facts.pad.id}
    return {key: token_id for key, token_id in ids.items() if token_id is not None}


def _read_config(path: Path) -> dict[str, Any]:
    raw = read_json_file(path, max_bytes=MAX_CONFIG_BYTES, max_depth=16, error=ConfigError)
    return raw if isinstance(raw, dict) else {}
