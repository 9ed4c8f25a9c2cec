"""`--fail-over kl=0.01,top1=0.98`: limits on figures of a comparison, and which of them are passed.

| name      | of depth       | figure                                                                      | fails |
|-----------|----------------|-----------------------------------------------------------------------------|-------|
| rel       | tensors        | relative error ‖b - a‖ / ‖a‖, the largest of any tensor                     | above |
| sqnr      | tensors        | 10 log10(Σa² / Σ(b - a)²) in dB, the smallest of any tensor                 | below |
| cosine    | tensors        | Σab / √(Σa² Σb²), the smallest of any tensor                                | below |
| changed   | tensors        | share of elements in blocks that changed (elements where there are none)    | above |
| differing | tensors        | number of tensors that differ                                               | above |
| residual  | layers, logits | relative error of the residual stream, the largest of any layer             | above |
| local     | layers         | relative error of one layer's part, the largest                             | above |
| overlap   | layers, logits | shared experts per token as a share, the smallest mean of any layer         | below |
| experts   | layers, logits | share of tokens sent to the same experts, the smallest of any layer         | below |
| kl        | logits         | mean KL(A ‖ B) over positions, in nats; also kl_median, kl_p99, kl_max      | above |
| top1      | logits         | share of positions with the same likeliest token                            | below |
| top5      | logits         | shared tokens of the five likeliest as a share, mean                        | below |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...formats.errors import UsageError

TENSORS, LAYERS, LOGITS = DEPTHS = ("tensors", "layers", "logits")

# Names that fail above their limit, and those that fail below it, each with the depths that measure it.
_ABOVE = {
    "rel": (TENSORS,),
    "changed": (TENSORS,),
    "differing": (TENSORS,),
    "residual": (LAYERS, LOGITS),
    "local": (LAYERS,),
    "kl": (LOGITS,),
    "kl_median": (LOGITS,),
    "kl_p99": (LOGITS,),
    "kl_max": (LOGITS,),
}
_BELOW = {
    "sqnr": (TENSORS,),
    "cosine": (TENSORS,),
    "overlap": (LAYERS, LOGITS),
    "experts": (LAYERS, LOGITS),
    "top1": (LOGITS,),
    "top5": (LOGITS,),
}
NAMES = _ABOVE | _BELOW


@dataclass(frozen=True)
class Limit:
    """A limit on one figure."""

    name: str
    value: float

    @property
    def fails(self) -> str:
        """ "above" or "below"."""
        return "above" if self.name in _ABOVE else "below"

    def is_passed(self, figure: float) -> bool:
        """Whether the figure is on the wrong side. A figure that is not a number is."""
        return not (figure <= self.value if self.name in _ABOVE else figure >= self.value)


@dataclass(frozen=True)
class Passed:
    """A limit that was passed, and the figure that did it."""

    limit: Limit
    figure: float

    def __str__(self) -> str:
        return f"{self.limit.name} is {self.figure:.6g}, {self.limit.fails} the limit of {self.limit.value:.6g}"


def parse_limits(text: str | None, depth: str) -> tuple[Limit, ...]:
    """The limits in "kl=0.01,top1=0.98".

    Raises:
        UsageError: a name is unknown, given twice or not measured at this depth, or a limit is no number.
    """
    limits: dict[str, Limit] = {}
    for part in text.split(",") if text is not None else ():
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in NAMES:
            raise UsageError(
                "--fail-over names a figure that is not known",
                expected=f"one of {', '.join(NAMES)}",
                found=repr(name),
                remedy="Use one of these names, as in --fail-over kl=0.01.",
            )
        if name in limits:
            raise UsageError(
                "--fail-over names a figure twice",
                expected="each once",
                found=repr(name),
                remedy="Give each name one limit.",
            )
        if depth not in NAMES[name]:
            raise UsageError(
                f"--fail-over names a figure that --depth {depth} does not measure",
                expected=f"one of {', '.join(name for name, depths in NAMES.items() if depth in depths)}",
                found=repr(name),
                remedy=f"Add --depth {NAMES[name][-1]}.",
            )
        limits[name] = Limit(name, _number(number if equals else ""))
    return tuple(limits.values())


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UsageError(
            "a limit of --fail-over is not a number",
            expected="NAME=NUMBER",
            found=repr(text),
            remedy="Write it as in --fail-over kl=0.01,top1=0.98.",
        )
    return value


def passed(limits: tuple[Limit, ...], figures: Mapping[str, float]) -> tuple[Passed, ...]:
    """The limits on the wrong side of which a figure is."""
    return tuple(Passed(limit, figures[limit.name]) for limit in limits if limit.is_passed(figures[limit.name]))
