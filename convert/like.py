"""Whether a checkpoint can be the base that another one is compared with."""

from __future__ import annotations

from ..formats.codecs.encoding import MXFP4, canonical
from ..formats.errors import UsageError
from .checkpoint import Checkpoint
from .stored import StoredTensor


def require_like(checkpoint: Checkpoint, like: Checkpoint) -> None:
    """Raises UsageError unless `like` is a model of the same shapes whose experts are MXFP4."""
    for name in {**checkpoint.tensors, **like.tensors}:
        stored, base = checkpoint.tensors.get(name), like.tensors.get(name)
        if stored is None or base is None or not _same_shape(stored, base, checkpoint.lost_rows or like.lost_rows):
            raise UsageError(
                "the checkpoint to compare with is another model",
                file=like.path,
                tensor=name,
                expected=_shape(stored),
                found=_shape(base),
                remedy="Give the checkpoint that this one was made of.",
            )
        if base.tensor.role == "experts" and canonical(base.encoding) is not MXFP4:
            raise UsageError(
                "the experts of the checkpoint to compare with are not MXFP4",
                file=base.spans[0].array.file,
                tensor=base.spans[0].array.name,
                found=base.encoding.name,
                remedy="Give the official checkpoint, in any layout that keeps its blocks.",
            )


def _same_shape(stored: StoredTensor, base: StoredTensor, lost_rows: int) -> bool:
    """Whether the shapes are equal, but for rows of embeddings that a Metal file does not hold."""
    found, expected = base.tensor.shape, stored.tensor.shape
    if lost_rows and stored.tensor.role in ("embedding", "unembedding"):
        return found[1:] == expected[1:]
    return found == expected


def _shape(stored: StoredTensor | None) -> str:
    return "nothing" if stored is None else f"shape {list(stored.tensor.shape)}"
