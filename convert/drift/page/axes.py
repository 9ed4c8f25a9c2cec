"""From values to places in a chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_DECADES = 12


@dataclass(frozen=True)
class Tick:
    """A labelled place. Minor labels are left out where there is little room."""

    value: float
    label: str
    is_minor: bool = False


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`; on a logarithmic axis both are powers of ten."""

    low: float
    high: float
    ticks: tuple[Tick, ...]
    is_log: bool = False

    def percent(self, value: float) -> float:
        """How far along the axis: 0 to 100; what is beyond an end is at that end."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.is_log else (self.low, self.high)
        if self.is_log:
            value = math.log10(value) if 0 < value < math.inf else math.copysign(math.inf, value or -1)
        share = (value - low) / (high - low)
        return round(100 * min(max(share, 0.0), 1.0), 2)


def log_axis(values: Iterable[float]) -> Axis:
    """Whole decades around the values above zero; at most 12 of them, below the largest."""
    known = [value for value in values if 0 < value < math.inf]
    last = math.ceil(math.log10(max(known, default=1.0)) - 1e-9)
    first = min(math.floor(math.log10(min(known, default=0.1)) + 1e-9), last - 1)
    first = max(first, last - _MOST_DECADES)
    step = -(-(last - first) // 6)
    ticks = [Tick(10.0**power, power_of_ten(power)) for power in range(last, first - 1, -step)]
    return Axis(10.0**first, 10.0**last, tuple(reversed(ticks)), is_log=True)


def power_of_ten(power: int) -> str:
    """ "10⁻³", "1", "10"."""
    return {0: "1", 1: "10"}.get(power, f"10{str(power).translate(_SUPERSCRIPTS)}")


def number_axis(low: float, high: float, *, suffix: str = "", most: int = 5) -> Axis:
    """Round numbers from below `low` to above `high`."""
    step = _round_step((high - low) / most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [Tick(place * step, f"{place * step:,.6g}{suffix}") for place in range(first, last + 1)]
    return Axis(first * step, last * step, tuple(ticks))


def _round_step(least: float) -> float:
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def category_axis(labels: Sequence[str]) -> Axis:
    """As many places as there are labels, each in the middle of its share of the axis."""
    step = max(1, -(-len(labels) // 8))
    ticks = [
        Tick(float(place), label, is_minor=len(labels) > 12 and bool(place // step % 2))
        for place, label in enumerate(labels)
        if place % step == 0
    ]
    return Axis(-0.5, len(labels) - 0.5, tuple(ticks))
