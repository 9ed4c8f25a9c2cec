"""What every target that is a directory of safetensors shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..checkpoint import Checkpoint
from ..plan import Closing, Layout
from ..stored import StoredTensor
from .shards import Shards


def lay_out_directory(
    name: str,
    out: Path,
    shards: Shards,
    texts: Mapping[str, bytes],
    tensors: dict[str, StoredTensor],
    open_directory: Callable[[Path], Checkpoint],
    notes: Sequence[str] = (),
    closing: Closing | None = None,
) -> Layout:
    """The layout of the new directory `out`: the shards, and `texts` by file name."""

    def reopen(paths: Sequence[Path]) -> Checkpoint:
        return open_directory(paths[0].parent)

    return Layout(
        name=name,
        files=shards.files,
        tensors=tensors,
        reopen=reopen,
        texts=tuple((out / file_name, text) for file_name, text in texts.items()),
        notes=tuple(notes),
        atomic_directory=out,
        closing=closing,
    )
