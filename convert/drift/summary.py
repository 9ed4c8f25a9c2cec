"""The one sentence that says what the difference between two checkpoints is, made of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..checkpoint import Checkpoint
from .clauses import clauses_of, plural
from .names import training_word
from .results import TensorComparison, Verdict

_SHOWN_KEYS = 3

# How the codes of a block lie in its bytes: only ggml's block type has the two halves side by side.
_NIBBLES = {"MXFP4": "in turn", "METAL_MXFP4": "in turn", "OLLAMA_MXFP4": "in turn", "GGML_MXFP4": "halves"}

ConfigDifferences = Sequence[tuple[str, Any, Any]]


def summarize(
    found: TensorComparison,
    a: Checkpoint,
    b: Checkpoint,
    configs: ConfigDifferences = (),
    mixups: Mapping[str, str] | None = None,
) -> str:
    """One sentence.

    Args:
        found: of `a` and `b`.
        a, b: the checkpoints.
        configs: keys in which the configs differ, with both values.
        mixups: as `mixups.find_mixups` gives them.
    """
    differing = found.differing
    if differing:
        parts = clauses_of(found, mixups)
        others = len(found.tensors) - len(differing)
        if others:
            parts.append(f"the other {plural(others, 'tensor')} {'is' if others == 1 else 'are'} the same")
    else:
        parts = _same(found, a, b)
    parts += _left_out(found, a, b)
    if configs:
        keys = [f"{key} ({of_a} and {of_b})" for key, of_a, of_b in configs]
        more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
        parts.append(f"their configs differ in {', '.join(keys[:_SHOWN_KEYS])}{more}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _same(found: TensorComparison, a: Checkpoint, b: Checkpoint) -> list[str]:
    """What it is if no tensor differs."""
    parts = _untrained(a, b)
    tensors = found.tensors.values()
    all_bytes = all(one.verdict is Verdict.BYTES for one in tensors)
    if all_bytes and a.layout == b.layout and all(one.encodings[0] == one.encodings[1] for one in tensors):
        return [*parts, f"same bytes: all {plural(len(found.tensors), 'tensor')} are identical"]
    parts.append(_same_weights(found, a, b))
    changed = [one.packed for one in tensors if one.packed]
    if changed:
        n_blocks, n_zeros = sum(one.changed for one in changed), sum(one.signed_zeros for one in changed)
        zeros = f" ({n_zeros:,} zeros have another sign)" if n_zeros else ""
        parts.append(f"{plural(n_blocks, 'block')} of experts hold the same numbers in other bytes{zeros}")
    return parts


def _untrained(a: Checkpoint, b: Checkpoint) -> list[str]:
    words = training_word(a), training_word(b)
    if (words[0] is None) == (words[1] is None):
        return []
    who, word = ("A", words[0]) if words[0] else ("B", words[1])
    return [f"{who} is the untrained base: no tensor differs although its name says fine-tuned ({word!r})"]


def _same_weights(found: TensorComparison, a: Checkpoint, b: Checkpoint) -> str:
    experts = {one.encodings for one in found.tensors.values() if one.role == "experts"}
    layouts = f"{a.layout} and {b.layout}"
    of_a, of_b = ({pair[side] for pair in experts} for side in (0, 1))
    packed = [side <= _NIBBLES.keys() for side in (of_a, of_b)]
    if packed == [True, False] or packed == [False, True]:
        floats, who, other = (of_b, "B", "A") if packed[0] else (of_a, "A", "B")
        names = " and ".join(sorted(floats - _NIBBLES.keys()))
        return f"{names} decode of the same blocks: {who} holds as floats what {other} holds as MXFP4"
    if all(packed):
        if any(_NIBBLES[one] != _NIBBLES[other] for one, other in experts):
            return f"same weights, other nibble order ({layouts})"
        return f"same weights, other layout ({layouts})" if a.layout != b.layout else "same weights"
    others = sorted({f"{pair[1]} for {pair[0]}" for pair in experts if pair[0] != pair[1]})
    encodings = f", other encoding of experts ({', '.join(others)})" if others else ", other layout"
    return f"same weights{encodings if others or a.layout != b.layout else ''}"


def _left_out(found: TensorComparison, a: Checkpoint, b: Checkpoint) -> list[str]:
    rows = max((one.rows_left_out for one in found.tensors.values()), default=0)
    if not rows:
        return []
    who, other = ("B", "A") if b.config.vocab_size < a.config.vocab_size else ("A", "B")
    return [f"{who} lacks the last {plural(rows, 'row')} of {other}'s embeddings"]
