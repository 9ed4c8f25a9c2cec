"""Any path to its canonical view: `open_checkpoint` recognises a layout by content, never by a file's name."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..formats.errors import CheckpointError
from ..model.config import GptOssConfig
from .reading import FileReader, SlabReader
from .stored import StoredArray, StoredTensor, account

if TYPE_CHECKING:
    from ..formats.containers.gguf_reader import GgufFile


@dataclass(frozen=True)
class Checkpoint:
    """A model in files: `tensors` maps canonical names to where they are stored. Reads no weights by itself.

    `directory` holds the tokenizer's files, if any; `gguf` is the header of the (first) GGUF file.
    """

    path: Path
    layout: str
    config: GptOssConfig
    tensors: dict[str, StoredTensor]
    arrays: tuple[StoredArray, ...]
    files: tuple[Path, ...]
    directory: Path | None = None
    gguf: GgufFile | None = None
    make_reader: Callable[[], SlabReader] = field(default=FileReader, repr=False)

    @property
    def n_bytes(self) -> int:
        """Bytes of tensor data."""
        return sum(array.n_bytes for array in self.arrays)

    @property
    def n_parameters(self) -> int:
        """Elements of all tensors."""
        return sum(stored.tensor.n_elements for stored in self.tensors.values())

    def account(self) -> int:
        """Proves that each stored byte belongs to exactly one tensor; returns how many. Raises VerificationError."""
        return account(self.arrays, self.tensors.values())


def open_checkpoint(path: str | Path, tokenizer: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`: a directory in the HF or the `original/` layout, or a GGUF file.

    Only headers and configs are read. `tokenizer` is a directory whose tokenizer is to be used instead of the
    checkpoint's own.

    Raises:
        CheckpointError, FormatError: it is none, or it is damaged; the message says where and how.
    """
    path = Path(path)
    try:
        return _open(path, tokenizer)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _not_a_checkpoint(path, "a directory or a file", error.strerror) from None
        raise CheckpointError(
            f"it cannot be read: {error.strerror or error}",
            file=error.filename or path,
            remedy="Check the path and the permissions.",
        ) from error


def _open(path: Path, tokenizer: Path | None) -> Checkpoint:
    if path.is_dir():
        from .sources.hf import open_hf, recognises_hf
        from .sources.original import open_original, recognises_original

        if recognises_original(path):
            return open_original(path, tokenizer)
        if recognises_hf(path):
            return open_hf(path, tokenizer)
        raise _not_a_checkpoint(path, "a directory with config.json and *.safetensors")
    if path.is_file():
        from .sources.gguf import open_gguf, recognises_gguf

        if recognises_gguf(path):
            return open_gguf(path)
        raise _not_a_checkpoint(path, "a directory, or a GGUF file")
    raise _not_a_checkpoint(path, "a directory or a file", "nothing")


def _not_a_checkpoint(path: Path, expected: str, found: str | None = None) -> CheckpointError:
    return CheckpointError(
        "this is not a gpt-oss checkpoint",
        file=path,
        expected=expected,
        found=found,
        remedy="Give the directory that holds config.json and model.safetensors.index.json.",
    )
