"""The canonical tensors of gpt-oss: every layout is a way to store exactly these.

Canonical tensors are the finest that any layout stores on its own: q, k, v and gate, up, down are apart.
A 20b model has 24·19 + 3 = 459 of them, a 120b model 36·19 + 3 = 687.

Rows and columns say how a tensor is streamed: a matrix row by row over all its leading dimensions (`[E, N, K]` is `E·N`
rows of `K`), a vector or bias element by element (one column).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from .config import GptOssConfig

# name, role, shape in terms of `dimensions()`
MODEL_TENSORS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("embedding.weight", "embedding", ("vocab", "hidden")),
    ("norm.weight", "norm", ("hidden",)),
    ("unembedding.weight", "unembedding", ("vocab", "hidden")),
)

LAYER_TENSORS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("layers.{layer}.attention.norm.weight", "norm", ("hidden",)),
    ("layers.{layer}.attention.q.weight", "attention", ("q", "hidden")),
    ("layers.{layer}.attention.q.bias", "attention bias", ("q",)),
    ("layers.{layer}.attention.k.weight", "attention", ("kv", "hidden")),
    ("layers.{layer}.attention.k.bias", "attention bias", ("kv",)),
    ("layers.{layer}.attention.v.weight", "attention", ("kv", "hidden")),
    ("layers.{layer}.attention.v.bias", "attention bias", ("kv",)),
    ("layers.{layer}.attention.o.weight", "attention", ("hidden", "q")),
    ("layers.{layer}.attention.o.bias", "attention bias", ("hidden",)),
    ("layers.{layer}.attention.sinks", "sinks", ("heads",)),
    ("layers.{layer}.moe.norm.weight", "norm", ("hidden",)),
    ("layers.{layer}.moe.router.weight", "router", ("experts", "hidden")),
    ("layers.{layer}.moe.router.bias", "router bias", ("experts",)),
    ("layers.{layer}.moe.gate.weight", "experts", ("experts", "intermediate", "hidden")),
    ("layers.{layer}.moe.gate.bias", "expert bias", ("experts", "intermediate")),
    ("layers.{layer}.moe.up.weight", "experts", ("experts", "intermediate", "hidden")),
    ("layers.{layer}.moe.up.bias", "expert bias", ("experts", "intermediate")),
    ("layers.{layer}.moe.down.weight", "experts", ("experts", "hidden", "intermediate")),
    ("layers.{layer}.moe.down.bias", "expert bias", ("experts", "hidden")),
)


@dataclass(frozen=True)
class CanonicalTensor:
    """One canonical tensor: its name, role and shape."""

    name: str
    role: str
    shape: tuple[int, ...]

    @property
    def cols(self) -> int:
        """Elements per streamed row: the last dimension of a matrix, 1 for anything else."""
        is_matrix = self.name.endswith(".weight") and len(self.shape) > 1
        return self.shape[-1] if is_matrix else 1

    @property
    def rows(self) -> int:
        """Streamed rows."""
        return self.n_elements // self.cols

    @property
    def matrix_rows(self) -> int:
        """Streamed rows of one matrix of the stack, of one expert's bias, or of everything else at once."""
        if len(self.shape) == 1:
            return self.shape[0]
        return self.shape[-2] if self.cols > 1 else self.shape[-1]

    @property
    def n_elements(self) -> int:
        """Parameters."""
        return prod(self.shape)


def dimensions(config: GptOssConfig) -> dict[str, int]:
    """The sizes that shapes are made of."""
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "intermediate": config.intermediate_size,
        "experts": config.num_local_experts,
        "heads": config.num_attention_heads,
        "q": config.num_attention_heads * config.head_dim,
        "kv": config.num_key_value_heads * config.head_dim,
    }


def inventory(config: GptOssConfig) -> dict[str, CanonicalTensor]:
    """Every canonical tensor by name: the embedding, the layers in order, the last norm, the unembedding."""
    return {tensor.name: tensor for tensor in _tensors(config)}


def _tensors(config: GptOssConfig) -> Iterator[CanonicalTensor]:
    sizes = dimensions(config)

    def make(row: tuple[str, str, tuple[str, ...]], layer: int = 0) -> CanonicalTensor:
        name, role, shape = row
        return CanonicalTensor(name.format(layer=layer), role, tuple(sizes[size] for size in shape))

    embedding, norm, unembedding = MODEL_TENSORS
    yield make(embedding)
    for layer in range(config.num_hidden_layers):
        for row in LAYER_TENSORS:
            yield make(row, layer)
    yield make(norm)
    yield make(unembedding)
