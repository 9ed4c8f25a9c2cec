"""What drift is, by its definitions, in float64 on whole arrays; and checkpoints and prompts to measure it on.

Shares no code with the package's own figures: the inputs are whole logits [T, V] of another program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from checkpoints import Tensors, copy_of, edit_tensors
from numpy.typing import NDArray

from gptoss_convert.convert.drift.prompts import Prompt, Prompts

Floats = NDArray[np.float64]

N_VOCAB = 416


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Of each row."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Expected:
    """The figures of two models whose log-probabilities are `a` and `b`, float64 [T, V].

    following: the token that comes next, [T]; -1 where none does.
    """

    a: Floats
    b: Floats
    following: NDArray[np.int64]

    @property
    def kl(self) -> Floats:
        return (np.exp(self.a) * (self.a - self.b)).sum(axis=1)

    @property
    def same_top(self) -> NDArray[np.bool_]:
        return self.a.argmax(axis=1) == self.b.argmax(axis=1)

    @property
    def top_overlap(self) -> NDArray[np.int64]:
        best = [np.argsort(-one, axis=1, kind="stable")[:, :5] for one in (self.a, self.b)]
        return np.array([len(set(x) & set(y)) for x, y in zip(*(one.tolist() for one in best), strict=True)])

    @property
    def probability_of_top(self) -> tuple[Floats, Floats]:
        """That of A's likeliest token under A and under B."""
        rows, top = np.arange(len(self.a)), self.a.argmax(axis=1)
        return np.exp(self.a[rows, top]), np.exp(self.b[rows, top])

    @property
    def next_tokens(self) -> tuple[Floats, Floats]:
        """The log-probability of the token that comes next under A and under B; without positions that have none."""
        rows = np.flatnonzero(self.following >= 0)
        return self.a[rows, self.following[rows]], self.b[rows, self.following[rows]]

    def reversed(self) -> Expected:
        """B taken for A: the wrong direction."""
        return Expected(self.b, self.a, self.following)


def random_prompts(lengths: Sequence[int] = (200,), n_vocab: int = 400, seed: int = 0) -> Prompts:
    """Prompts of random ids below `n_vocab`."""
    generator = np.random.default_rng(seed)
    prompts = [
        Prompt(f"prompt {number}", generator.integers(0, n_vocab, length), ("",) * length)
        for number, length in enumerate(lengths)
    ]
    return Prompts(tuple(prompts), "a test's")


def following(prompts: Prompts) -> NDArray[np.int64]:
    """The token that comes next at each position, -1 after the last of a prompt."""
    return np.concatenate([[*one.tokens[1:].tolist(), -1] for one in prompts.prompts]).astype(np.int64)


def disturbed(checkpoint: Path, directory: Path, amount: float, *, only: str = "", seed: int = 0) -> Path:
    """A copy whose BF16 tensors are each off by noise of `amount` times their RMS.

    only: a part of the names of those that are changed.
    """

    def change(tensors: Tensors) -> None:
        generator = np.random.default_rng(seed)
        for name, tensor in sorted(tensors.items()):
            if tensor.dtype == "BF16" and only in name:
                values = np.frombuffer(tensor.data, ml_dtypes.bfloat16).astype(np.float64)
                noise = generator.standard_normal(values.size) * amount * np.sqrt((values**2).mean())
                tensor.data = (values + noise).astype(ml_dtypes.bfloat16).tobytes()

    out = copy_of(checkpoint, directory)
    edit_tensors(out, change)
    return out
