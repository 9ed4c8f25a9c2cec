"""Tensors that hold the right numbers in the wrong place: which known mistake of a converter explains them.

Only the first matrix of a tensor is read, or its first rows. An explanation is given where it holds for all of these,
to the last bit, so it is never a guess of a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.codecs.encoding import MXFP4
from ...formats.codecs.slab import Scratch, as_f32
from ..checkpoint import Checkpoint
from ..reading import SlabReader
from .clauses import UNRELATED
from .results import TensorComparison, TensorDrift

Array = NDArray[Any]

# Most elements of a matrix that is read whole, and the rows read of larger ones.
_WHOLE_ELEMENTS, _FIRST_ROWS = 1 << 24, 512

_MATRICES = {"embedding", "unembedding", "attention", "router", "experts"}

_BLOCK = MXFP4.block_elements
_SPLIT = np.arange(_BLOCK).reshape(2, -1).T.reshape(-1)


def find_mixups(found: TensorComparison, a: Checkpoint, b: Checkpoint) -> dict[str, str]:
    """What happened to tensors that are unrelated to A's, and to norms that differ: a verb phrase by canonical name.

    Only what is explained is in it. Raises OSError: a file cannot be read.
    """
    unrelated = [one for one in found.differing if one.sums.cosine < UNRELATED]
    suspects = unrelated + [one for one in found.differing if one.role == "norm" and one not in unrelated]
    matrices = {one.name for one in found.tensors.values() if one.role in _MATRICES}
    if not suspects or matrices <= {one.name for one in unrelated}:
        # Of two different models nothing is explained.
        return {}
    with a.make_reader() as reader_a, b.make_reader() as reader_b:
        sides = _Side(a, reader_a), _Side(b, reader_b)
        said = {one.name: _explanation(one, *sides) for one in suspects}
    return {name: words for name, words in said.items() if words}


class _Side:
    """Reads the first matrices of one checkpoint's tensors."""

    def __init__(self, checkpoint: Checkpoint, reader: SlabReader) -> None:
        self._checkpoint, self._reader, self._scratch = checkpoint, reader, Scratch()

    def matrix(self, name: str) -> Array | None:
        """The first matrix, or its first rows, float32; None if there is no such tensor. Biases of experts are one."""
        stored = self._checkpoint.tensors.get(name)
        if stored is None:
            return None
        tensor = stored.tensor
        if tensor.cols == 1:
            n_rows = tensor.rows
        else:
            large = tensor.matrix_rows * tensor.cols > _WHOLE_ELEMENTS and not stored.is_transposed
            n_rows = _FIRST_ROWS if large else tensor.matrix_rows
        (slab,) = self._reader.load([stored], 0, n_rows, self._scratch)
        values = as_f32(slab, self._scratch, "values").copy()
        return values.reshape(-1, tensor.matrix_rows) if tensor.cols == 1 else values


def _explanation(one: TensorDrift, a: _Side, b: _Side) -> str | None:
    """The first that holds."""
    found, expected = b.matrix(one.name), a.matrix(one.name)
    assert found is not None
    assert expected is not None
    for name, words in _others(one):
        other = a.matrix(name)
        if other is not None and other.shape == found.shape and np.array_equal(other, found):
            return words
    if _is_taken_apart_twice(one.name, found, expected, a):
        return "have rows of gate and up taken apart twice"
    return next((words for words, holds in _ORDERS if _holds(holds, expected, found)), None)


def _others(one: TensorDrift) -> Iterable[tuple[str, str]]:
    """Tensors of A that B's may be, and what to say then."""
    for this, other in (("gate", "up"), ("up", "gate")):
        if f".{this}." in one.name:
            yield one.name.replace(f".{this}.", f".{other}."), "have gate and up swapped"
    if one.layer is not None:
        for step, word in ((-1, "before"), (1, "after")):
            name = one.name.replace(f"layers.{one.layer}.", f"layers.{one.layer + step}.")
            yield name, f"hold A's weights of the layer {word}"
    for name, role in (("embedding.weight", "embedding"), ("unembedding.weight", "unembedding")):
        if one.name in ("embedding.weight", "unembedding.weight") and one.name != name:
            yield name, f"hold A's {role}"


def _is_taken_apart_twice(name: str, found: Array, expected: Array, a: _Side) -> bool:
    """Whether B's gate (or up) is every second row of A's gate, then every second row of A's up."""
    if ".gate.weight" not in name and ".up.weight" not in name:
        return False
    first = 0 if ".gate." in name else 1
    pair = [a.matrix(name.replace((".gate.", ".up.")[first], other)) for other in (".gate.", ".up.")]
    if any(one is None or one.shape != expected.shape for one in pair):
        return False
    return np.array_equal(np.concatenate([one[first::2] for one in pair if one is not None]), found)


def _holds(holds: Callable[[Array, Array], bool], a: Array, b: Array) -> bool:
    return a.shape == b.shape and len(a) > 1 and a.shape[1] > 1 and holds(a, b)


def _in_blocks(order: Array) -> Callable[[Array, Array], bool]:
    """Whether element i of each block of B is element `order[i]` of A's."""

    def holds(a: Array, b: Array) -> bool:
        if a.shape[1] % _BLOCK:
            return False
        return np.array_equal(a.reshape(-1, _BLOCK)[:, order], b.reshape(-1, _BLOCK))

    return holds


def _transposed(a: Array, b: Array) -> bool:
    square = a.shape[0] == a.shape[1]
    return np.array_equal(a.reshape(a.shape[::-1]).T, b) or (square and np.array_equal(a.T, b))


def _moved(a: Array, b: Array) -> bool:
    return np.array_equal(a[1:], b[:-1]) or np.array_equal(a[:-1], b[1:])


def _in_other_order(a: Array, b: Array) -> bool:
    """Whether both have the same rows."""
    return sorted(hash(row.tobytes()) for row in a) == sorted(hash(row.tobytes()) for row in b)


def _heads(n: int) -> Callable[[Array, Array], bool]:
    """Whether rows of each head of 2n lie in pairs in one and in halves in the other."""

    def holds(a: Array, b: Array) -> bool:
        if len(a) % (2 * n):
            return False
        return any(
            np.array_equal(one.reshape(-1, 2, n, one.shape[1]).swapaxes(1, 2).reshape(one.shape), other)
            for one, other in ((a, b), (b, a))
        )

    return holds


_ORDERS: tuple[tuple[str, Callable[[Array, Array], bool]], ...] = (
    ("have the two codes of each byte swapped", _in_blocks(np.arange(_BLOCK) ^ 1)),
    ("have ggml's order of codes taken for Hugging Face's", _in_blocks(_SPLIT)),
    ("have Hugging Face's order of codes taken for ggml's", _in_blocks(np.argsort(_SPLIT))),
    ("are transposed", _transposed),
    ("have the rows of their heads in pairs where A has halves, or the reverse", _heads(32)),
    ("have all rows moved by one", _moved),
    ("hold A's rows in another order", _in_other_order),
)
