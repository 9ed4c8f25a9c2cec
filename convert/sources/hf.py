"""Opens the official HF layout: config.json, an index, shards."""

from __future__ import annotations

from pathlib import Path

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


def open_hf(directory: Path) -> Checkpoint:
    """The checkpoint in `directory`. Raises CheckpointError, SafetensorsError."""
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
    arrays = {
        entry.name: StoredArray(header.path, entry.name, entry.dtype, entry.shape, entry.offset, entry.n_bytes)
        for header in headers
        for entry in header.entries.values()
    }
    return Checkpoint(
        path=directory,
        layout=hf.NAME,
        config=config,
        tensors=bind(arrays, hf.TABLE, config, directory),
        arrays=tuple(arrays.values()),
        files=tuple(header.path for header in headers),
        directory=directory,
    )
