"""Whether two checkpoints are of one model: then every tensor of one has its counterpart in the other."""

from __future__ import annotations

from ..formats.errors import UsageError
from .checkpoint import Checkpoint

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_local_experts",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts_per_tok",
)


def require_same_model(checkpoint: Checkpoint, other: Checkpoint) -> None:
    """Raises UsageError naming the first size in which the two models differ.

    The vocabulary may differ where one side's layout cannot hold all rows of the embeddings.
    """
    keys = [*_SIZES] if checkpoint.lost_rows or other.lost_rows else [*_SIZES, "vocab_size"]
    for key in keys:
        expected, found = getattr(checkpoint.config, key), getattr(other.config, key)
        if expected != found:
            raise UsageError(
                "the two checkpoints are not of one model",
                file=other.path,
                key=key,
                expected=f"{expected}, as in {checkpoint.path}",
                found=found,
                remedy="Compare checkpoints of the same size; `gptoss-convert inspect` shows what each is.",
            )
