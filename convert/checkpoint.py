"""Any path to its canonical view: `open_checkpoint` recognises a layout by content, never by a file's name."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..formats.errors import CheckpointError
from ..model.config import GptOssConfig
from .mistaken import not_a_checkpoint
from .reading import FileReader, SlabReader
from .stored import StoredArray, StoredTensor, account
from .tokenizers import DirectoryTokenizer, TokenizerSource


@dataclass(frozen=True)
class Checkpoint:
    """A model in files: `tensors` maps canonical names to where they are stored. Reads no weights by itself.

    Attributes:
        tokenizer: where its tokenizer is, if it has one.
        model_name: what its files call it, if they do.
        notes: what a user should know of how it is stored.
        lost_rows: how many rows the embeddings of the whole model have after those that are stored.
        is_blank: whether every weight is zero.
        packed_digests: of the MXFP4 tensors that its floats were decoded from, by canonical name.
    """

    path: Path
    layout: str
    config: GptOssConfig
    tensors: dict[str, StoredTensor]
    arrays: tuple[StoredArray, ...]
    files: tuple[Path, ...]
    tokenizer: TokenizerSource | None = None
    model_name: str | None = None
    notes: tuple[str, ...] = ()
    lost_rows: int = 0
    packed_digests: dict[str, str] = field(default_factory=dict)
    is_blank: bool = False
    make_reader: Callable[[], SlabReader] = field(default=FileReader, repr=False)

    @property
    def n_bytes(self) -> int:
        """Bytes of tensor data."""
        return sum(array.n_bytes for array in self.arrays)

    @property
    def n_parameters(self) -> int:
        """Elements of all tensors."""
        return sum(stored.tensor.n_elements for stored in self.tensors.values())

    @property
    def tokenizer_directory(self) -> Path | None:
        """The directory of the tokenizer's files, if it is in files of its own."""
        return self.tokenizer.directory if isinstance(self.tokenizer, DirectoryTokenizer) else None

    def account(self) -> int:
        """Proves that each stored byte belongs to exactly one tensor; returns how many. Raises VerificationError."""
        return account(self.arrays, self.tensors.values())


def open_checkpoint(path: str | Path, tokenizer: Path | None = None, *, pad_vocab: bool = False) -> Checkpoint:
    """The checkpoint at `path`, in any layout that is known: a directory of safetensors, a GGUF file, a Metal file.

    Only headers and configs are read.

    Args:
        path: a directory or a file.
        tokenizer: a directory whose tokenizer is to be used instead of the checkpoint's own.
        pad_vocab: give embeddings that end with the last token, as in a Metal file, rows of zeros up to the usual size.

    Raises:
        CheckpointError, FormatError: it is none, or it is damaged; the message says where and how.
    """
    path = Path(path)
    try:
        return _open(path, tokenizer, pad_vocab)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise not_a_checkpoint(path, "a directory or a file", error.strerror) from None
        raise CheckpointError(
            f"it cannot be read: {error.strerror or error}",
            file=error.filename or path,
            remedy="Check the path and the permissions.",
        ) from error


def _open(path: Path, tokenizer: Path | None, pad_vocab: bool) -> Checkpoint:
    if path.is_dir():
        from .sources.hf import open_hf, recognises_hf
        from .sources.original import open_original, recognises_original

        if recognises_original(path):
            return open_original(path, tokenizer)
        if recognises_hf(path):
            return open_hf(path, tokenizer)
        raise not_a_checkpoint(path, "a directory with config.json and *.safetensors")
    if path.is_file():
        from .sources.gguf import open_gguf, recognises_gguf
        from .sources.metal import open_metal, recognises_metal

        if recognises_gguf(path):
            return open_gguf(path, tokenizer)
        if recognises_metal(path):
            return open_metal(path, tokenizer, pad_vocab=pad_vocab)
        raise not_a_checkpoint(path, "a directory, a GGUF file, or a Metal model file")
    raise not_a_checkpoint(path, "a directory or a file", "nothing")
