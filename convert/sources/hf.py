"""Opens the official HF layout: config.json, an index, shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...formats.containers.safetensors import SafetensorsHeader
from ...formats.containers.safetensors_index import read_safetensors_directory
from ...formats.errors import CheckpointError
from ...model.config import CONFIG_FILE, read_config
from ...model.layouts import hf
from ..binding import bind
from ..checkpoint import Checkpoint
from ..stored import StoredArray


def recognises_hf(directory: Path) -> bool:
    """True if `directory` holds safetensors or a config: enough for `open_hf` to say what else is wrong."""
    return (directory / CONFIG_FILE).exists() or any(directory.glob("*.safetensors*"))


def open_hf(directory: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The checkpoint in `directory`; its tokenizer lies in `tokenizer`, if given.

    Raises:
        CheckpointError, SafetensorsError: it is damaged or incomplete.
    """
    config_file = directory / CONFIG_FILE
    if not config_file.is_file():
        raise CheckpointError(
            f"the directory has no {CONFIG_FILE}",
            file=directory,
            expected=CONFIG_FILE,
            remedy="Download it from the repository the weights came from.",
        )
    config = read_config(config_file)
    headers = read_safetensors_directory(directory)
    arrays = arrays_of(headers)
    return Checkpoint(
        path=directory,
        layout=hf.NAME,
        config=config,
        tensors=bind(arrays, hf.TABLE, config, directory),
        arrays=tuple(arrays.values()),
        files=tuple(header.path for header in headers),
        directory=tokenizer or directory,
    )


def arrays_of(headers: Sequence[SafetensorsHeader]) -> dict[str, StoredArray]:
    """Every array of the files, by name."""
    return {
        entry.name: StoredArray(header.path, entry.name, entry.dtype, entry.shape, entry.offset, entry.n_bytes)
        for header in headers
        for entry in header.entries.values()
    }
