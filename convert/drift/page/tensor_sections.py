"""What the page says of `--depth tensors`."""

from __future__ import annotations

from collections.abc import Mapping

from ..report import WORST_COLUMNS, decibels, percent, relative, tensor_tables, worst_row
from ..results import TensorComparison, TensorDrift, Verdict
from .axes import log_axis
from .charts import bars, figure
from .heat_map import heat_map
from .markup import Markup
from .parts import Tile, folded, lead, section
from .tables import from_terminal, table

WORST_SHOWN = 20

# Shifts of scales beyond this are counted together.
_LARGEST_SHIFT = 12


def tensor_tiles(found: TensorComparison) -> list[Tile]:
    totals = found.totals
    counts = totals.tensors
    shown: list[Tile] = [
        ("same bytes", f"{counts[Verdict.BYTES]:,}", f"of {totals.count:,} tensors"),
        ("same values", f"{counts[Verdict.VALUES]:,}", "in other bytes"),
        ("differ", f"{counts[Verdict.DIFFERS]:,}", f"{percent(totals.share_changed)} of elements changed"),
    ]
    if not found.differing:
        return shown
    worst = found.differing[0]
    lowest = min(found.differing, key=lambda one: one.sums.sqnr_db)
    return [
        *shown,
        ("largest relative error", relative(totals.worst_relative), worst.name),
        ("lowest SQNR", decibels(totals.lowest_sqnr_db), "" if lowest.name == worst.name else lowest.name),
    ]


def tensor_sections(found: TensorComparison, mixups: Mapping[str, str]) -> list[Markup]:
    sections = [
        section(
            "By role",
            lead("Errors and SQNR are the worst of any tensor of the role that differs."),
            from_terminal("Tensors by role", tensor_tables(found)[0]),
        ),
        section("Where they differ", heat_map(found)),
    ]
    if mixups:
        text = (
            "Known mistakes of converters that explain a tensor to the last bit, as far as it was compared again: its "
            "first matrix, or the first rows of it."
        )
        listed = table("Mixed up", ("tensor", "what it is in B"), mixups.items(), left=("tensor", "what it is in B"))
        sections.append(section("Mixed up", lead(text), listed))
    if found.shifts():
        sections.append(section("Scale shifts", *_shifts(found)))
    if found.differing:
        sections.append(section("Worst tensors", *_worst(found)))
    return sections


def _shifts(found: TensorComparison) -> list[Markup]:
    shifts = found.shifts()
    low, high = max(min(shifts), -_LARGEST_SHIFT), min(max(shifts), _LARGEST_SHIFT)
    places = range(min(low, high, 0), max(low, high, 0) + 1)
    counts = dict.fromkeys(places, 0)
    for shift, count in shifts.items():
        counts[min(max(shift, places[0]), places[-1])] += count
    labels = [_label(shift, places, shifts) for shift in places]
    y = log_axis([0.5, *(float(count) for count in counts.values())])
    titles = [f"{label}: {count:,} blocks" for label, count in zip(labels, counts.values(), strict=True)]
    x, drawn = bars(labels, [("fill-b", [float(count) for count in counts.values()])], y, titles)
    total = sum(shifts.values())
    most = max(shifts, key=lambda shift: (shifts[shift], -shift))
    return [
        lead(
            f"{total:,} blocks hold other bytes in A and B. A shift of 1 means that B's scale is twice A's; blocks "
            "with a shift of 0 differ in their codes alone."
        ),
        figure(
            "Scale shifts of packed blocks",
            f"{total:,} blocks; the most frequent shift is {most:+d}, of {shifts[most]:,} blocks.",
            drawn,
            axes=(x, y),
            labels=("scale byte of B less that of A", "blocks, logarithmic"),
        ),
        folded(
            "Numbers", table("Scale shifts", ("shift", "blocks"), [(f"{s:+d}", f"{n:,}") for s, n in shifts.items()])
        ),
    ]


def _label(shift: int, places: range, shifts: dict[int, int]) -> str:
    """ "-1", "0", "+1"; "≤ -12" where all beyond are counted."""
    if shift == places[0] and min(shifts) < shift:
        return f"≤ {shift:+d}"
    if shift == places[-1] and max(shifts) > shift:
        return f"≥ {shift:+d}"
    return f"{shift:+d}" if shift else "0"


def _worst(found: TensorComparison) -> list[Markup]:
    differing = found.differing
    rows = [worst_row(one) for one in differing[:WORST_SHOWN]]
    shown = table("Worst tensors", WORST_COLUMNS, rows, left=("tensor", "where in B"), style="wide")
    if len(differing) == len(rows):
        return [
            lead("All that differ, the largest relative error first, with the element that is farthest off."),
            shown,
        ]
    listed = table(
        "All tensors that differ",
        ("tensor", "A", "B", "error", "SQNR", "changed"),
        [_row(one) for one in differing],
        left=("tensor", "A", "B"),
    )
    return [
        lead(
            f"The {len(rows)} largest relative errors of {len(differing):,} tensors that differ, each with the element "
            "that is farthest off."
        ),
        shown,
        folded(f"All {len(differing):,} tensors that differ", listed),
    ]


def _row(one: TensorDrift) -> list[str]:
    error, sqnr = relative(one.sums.relative_error), decibels(one.sums.sqnr_db)
    return [one.name, *one.encodings, error, sqnr, f"{percent(one.share_changed)} of {one.unit}s"]
