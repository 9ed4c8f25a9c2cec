"""Conversions that must succeed, and what they leave."""

from __future__ import annotations

from pathlib import Path

import gguf
from command_line import Argument, command

# Command and options for each layout that keeps MXFP4, and the name of what it writes.
LAYOUTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "hf": ("to-mxfp4", ("--shard-plan", "1M"), "tiny"),
    "original": ("to-mxfp4", ("--layout", "original"), "tiny"),
    "mlx": ("to-mlx", (), "tiny"),
    "gguf": ("to-gguf", (), "tiny.gguf"),
    "metal": ("to-metal", (), "tiny.bin"),
}


def converted(name: str, source: Path, out: Path, *options: Argument) -> Path:
    """`out`, written by the command."""
    outcome = command(name, source, out, *options)
    assert outcome.code == 0, outcome.err
    return out


def in_layout(layout: str, source: Path, directory: Path, *options: Argument) -> Path:
    """The source in one of `LAYOUTS`, in the directory, which is made if need be."""
    name, fixed, file_name = LAYOUTS[layout]
    directory.mkdir(parents=True, exist_ok=True)
    return converted(name, source, directory / file_name, *fixed, *options)


def contents(path: Path) -> dict[str, bytes]:
    """Every file of the directory, every tensor of a GGUF file, or the one file, by name.

    A GGUF file has the config of what it was made of among its keys, so that the whole file says where it comes from.
    """
    if path.suffix == ".gguf":
        return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(path).tensors}
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}
