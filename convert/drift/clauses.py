"""What became of the tensors that differ: each gets the first explanation that its figures allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ...formats.codecs.encoding import BF16, F16, F32, MXFP4, QUANTIZED
from .results import TensorComparison, TensorDrift, total

# The largest relative error that going to an encoding explains; whatever is not here is measured as `_COARSE`.
_EXPLAINED = {"Q8_0": 0.03, "MLX_Q8": 0.03, "BF16": 2.0**-8, "F16": 2.0**-8, "Q6_K": 0.1}
_COARSE = 0.3

UNRELATED = 0.5
"""Below this cosine, two tensors are not versions of one another."""

# If more of all elements are in such tensors, the two are different models.
_ANOTHER_MODEL = 0.9

# Tensors with at most this share of their blocks changed (or one block) are named, not counted, if they are few.
_FEW_SHARE, _FEW_TENSORS = 1e-4, 3

_MATRICES = {"attention", "embedding", "unembedding", "router"}
_NOUNS = {"experts": "expert"}


@dataclass(frozen=True)
class _Kind:
    """An explanation: whether a tensor has it, and what to say of all that do."""

    holds: Callable[[TensorDrift], bool]
    say: Callable[[list[TensorDrift], TensorComparison], list[str]]


def clauses_of(found: TensorComparison, mixups: Mapping[str, str] | None = None) -> list[str]:
    """What to say of the tensors that differ, the plainest explanation first.

    `mixups` are verb phrases for tensors whose numbers are in the wrong place, by canonical name.
    """
    mixups = mixups or {}
    clauses = _say_mixups([one for one in found.differing if one.name in mixups], mixups)
    left = [one for one in found.differing if one.name not in mixups]
    unrelated = [one for one in left if _unrelated(one)]
    if total(unrelated).elements > _ANOTHER_MODEL * found.totals.elements:
        counts = f"{len(unrelated):,} of {len(found.tensors):,} tensors"
        return [f"two models that have only their shape in common: {counts} are unrelated (cosine below {UNRELATED})"]
    for kind in _KINDS:
        members = [one for one in left if kind.holds(one)]
        if members:
            said = kind.say(members, found)
            if said:
                clauses += said
                left = [one for one in left if one not in members]
    return clauses


def _say_mixups(members: list[TensorDrift], mixups: Mapping[str, str]) -> list[str]:
    clauses = []
    for words in dict.fromkeys(mixups[one.name] for one in members):
        some = [one for one in members if mixups[one.name] == words]
        clauses.append(f"{which(some)} {words if len(some) > 1 else _singular(words)}")
    return clauses


def _singular(words: str) -> str:
    verb, _, rest = words.partition(" ")
    return f"{ {'have': 'has', 'hold': 'holds', 'are': 'is'}[verb] } {rest}"


def plural(count: int, noun: str) -> str:
    """ "1 tensor", "2,000 tensors"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def count_of(one: TensorDrift) -> str:
    """ "3 of 5,760 blocks differ"."""
    return f"{one.changed:,} of {plural(one.units, one.unit)} {'differs' if one.changed == 1 else 'differ'}"


def which(members: Iterable[TensorDrift]) -> str:
    """ "12 expert tensors in layers 3–5"."""
    members = list(members)
    roles = sorted({one.role for one in members})
    noun = f"{_NOUNS.get(roles[0], roles[0])} tensor" if len(roles) == 1 else "tensor"
    layers = sorted({one.layer for one in members if one.layer is not None})
    listed = f" ({', '.join(roles)})" if 1 < len(roles) <= 4 else ""
    return f"{plural(len(members), noun)}{listed}{f' in {_layers(layers)}' if layers else ''}"


def _layers(numbers: list[int]) -> str:
    """ "layer 3", "layers 0, 3–5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    said = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(said)}"


def _were(members: list[TensorDrift]) -> str:
    return "was" if len(members) == 1 else "were"


def _error(members: Iterable[TensorDrift]) -> str:
    return f"relative error up to {100 * total(members).worst_relative:.2g} %"


# --- rows of embeddings that one side has not ---


def _zero_rows(one: TensorDrift) -> bool:
    rows = one.rows
    return rows is not None and rows.changed in (rows.zero_in_a, rows.zero_in_b)


def _say_zero_rows(members: list[TensorDrift], _found: TensorComparison) -> list[str]:
    clauses = []
    for side in "ab":
        some = [one for one in members if one.rows and one.rows.changed == getattr(one.rows, f"zero_in_{side}")]
        rows = max((one.rows.changed for one in some if one.rows), default=0)
        if some:
            names, other = " and ".join(sorted(one.role for one in some)), "BA"["ab".index(side)]
            clauses.append(f"{plural(rows, 'row')} of {side.upper()}'s {names} are zero and {other}'s are not")
    return clauses


# --- another encoding ---


_PACKED = {"MXFP4", "GGML_MXFP4", "OLLAMA_MXFP4", "METAL_MXFP4"}


def _plain(name: str) -> str:
    """The encoding's name without what is special to a layout."""
    return MXFP4.name if name in _PACKED else BF16.name if name.startswith("METAL_") else name


def _is_lossy(name: str) -> bool:
    return name in QUANTIZED or name.startswith("MLX_Q")


def _loses(name: str, other: str) -> bool:
    """Whether values of the encoding `other` may have to be changed to fit into `name`."""
    if name == other or _is_lossy(other):
        return False
    if _is_lossy(name) or name in (MXFP4.name, F16.name):
        return True
    return name == BF16.name and other in (F32.name, F16.name)


def _cause(one: TensorDrift) -> tuple[str, str] | None:
    """The side ("A" or "B") whose encoding may have changed the values, and the encoding."""
    a, b = map(_plain, one.encodings)
    return ("B", b) if _loses(b, a) else ("A", a) if _loses(a, b) else None


def _explained(name: str) -> float:
    """The largest relative error that going to the encoding explains."""
    return next((limit for prefix, limit in _EXPLAINED.items() if name.startswith(prefix)), _COARSE)


def _reencoded(one: TensorDrift) -> bool:
    cause = _cause(one)
    return cause is not None and one.sums.relative_error <= _explained(cause[1])


def _say_reencoded(members: list[TensorDrift], _found: TensorComparison) -> list[str]:
    clauses = []
    for side, name in dict.fromkeys(filter(None, map(_cause, members))):
        some = [one for one in members if _cause(one) == (side, name)]
        what = "rounded" if name in (F16.name, BF16.name) else "quantized"
        whose = "" if side == "B" else "A's "
        clauses.append(f"{whose}{_group(some)} {what} to {name} ({_error(some)})")
    return clauses


def _group(members: list[TensorDrift]) -> str:
    """ "dense weights (attention) were", "experts were", or which tensors were."""
    roles = {one.role for one in members}
    if roles == {"experts"}:
        return "experts were"
    if roles <= _MATRICES:
        return f"dense weights ({', '.join(sorted(roles))}) were"
    return f"{which(members)} {_were(members)}"


# --- scales alone ---


def _scales_alone(one: TensorDrift) -> bool:
    return one.packed is not None and one.packed.changed == one.packed.scale_only


def _say_scales(members: list[TensorDrift], _found: TensorComparison) -> list[str]:
    shifts = sorted({shift for one in members if one.packed for shift in one.packed.shifts})
    n_blocks = sum(one.packed.changed for one in members if one.packed)
    all_of_them = n_blocks == sum(one.units for one in members)
    if len(shifts) == 1:
        said = f"are {'larger' if shifts[0] > 0 else 'smaller'} by {abs(shifts[0])}"
        share = "all scales" if all_of_them else f"{plural(n_blocks, 'scale')}"
        return [f"{share} of {which(members)} {said if n_blocks > 1 else said.replace('are', 'is')}, all else is equal"]
    return [f"{plural(n_blocks, 'scale')} of {which(members)} differ, the codes are equal"]


# --- a few blocks ---


def _few_blocks(one: TensorDrift) -> bool:
    return one.changed <= max(1, _FEW_SHARE * one.units)


def _say_few(members: list[TensorDrift], found: TensorComparison) -> list[str]:
    if len(members) > _FEW_TENSORS or len(members) < len(found.differing):
        return []
    return [f"{count_of(one)} in {one.name}, too few for training: damaged or edited" for one in members]


# --- other weights ---


def _zero(one: TensorDrift) -> bool:
    return one.sums.energy_b == 0 or one.sums.energy_a == 0


def _say_zero(members: list[TensorDrift], _found: TensorComparison) -> list[str]:
    clauses = []
    for side, name in (("energy_a", "A"), ("energy_b", "B")):
        some = [one for one in members if getattr(one.sums, side) == 0]
        if some:
            verb = "is" if len(some) == 1 else "are"
            clauses.append(f"{which(some)} {verb} zero in {name} and not in {'BA'['AB'.index(name)]}")
    return clauses


def _unrelated(one: TensorDrift) -> bool:
    return one.sums.cosine < UNRELATED


def _say_unrelated(members: list[TensorDrift], _found: TensorComparison) -> list[str]:
    return [f"{which(members)} {'holds' if len(members) == 1 else 'hold'} unrelated numbers (cosine below {UNRELATED})"]


def _say_changed(members: list[TensorDrift], found: TensorComparison) -> list[str]:
    roles = {one.role for one in found.differing}
    if roles == {"norm"}:
        return [f"only norm weights differ: {which(members)} ({_error(members)})"]
    experts = [one for one in found.tensors.values() if one.role == "experts"]
    packed = all(set(one.encodings) <= _PACKED for one in members)
    if packed and len(members) == len(experts) == len(found.differing) and total(members).worst_relative <= _COARSE:
        return [f"experts were quantized anew: all of them hold other MXFP4 values ({_error(members)})"]
    return [f"{which(members)} {_were(members)} retrained ({_error(members)})"]


_KINDS = (
    _Kind(_zero_rows, _say_zero_rows),
    _Kind(_reencoded, _say_reencoded),
    _Kind(_zero, _say_zero),
    _Kind(_scales_alone, _say_scales),
    _Kind(_few_blocks, _say_few),
    _Kind(_unrelated, _say_unrelated),
    _Kind(lambda _one: True, _say_changed),
)
