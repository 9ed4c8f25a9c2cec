"""A comparison of tensors as JSON data, as tables and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ..render import plain_table
from ..report import number
from .results import Spot, TensorComparison, TensorDrift, Totals, Verdict

WORST_SHOWN = 5
WORST_COLUMNS = ("tensor", "error", "SQNR", "cosine", "changed", "largest", "where in B")


def figures(found: TensorComparison) -> dict[str, float]:
    """What `--fail-over` takes, by its name: the worst of any tensor, and over all of them."""
    totals = found.totals
    return {
        "rel": totals.worst_relative,
        "sqnr": totals.lowest_sqnr_db,
        "cosine": min((one.sums.cosine for one in found.tensors.values()), default=1.0),
        "changed": totals.share_changed,
        "differing": float(len(found.differing)),
    }


def describe_tensors(found: TensorComparison) -> dict[str, Any]:
    """The comparison as JSON data; a figure that is infinite is null."""
    return {
        "verdict": verdict_of(found.tensors.values()).value,
        "total": _totals(found.totals),
        "roles": [{"role": role} | _totals(totals) for role, totals in found.by_role().items()],
        "layers": [
            {"layer": layer, "role": role} | _totals(totals)
            for (layer, role), totals in found.by_layer_and_role().items()
        ],
        "scale_shifts": {str(shift): count for shift, count in found.shifts().items()},
        "worst": [one.name for one in found.differing[:WORST_SHOWN]],
        "tensors": {name: _tensor(one) for name, one in found.tensors.items()},
    }


def verdict_of(tensors: Iterable[TensorDrift]) -> Verdict:
    """The strongest that holds for all of them."""
    verdicts = {one.verdict for one in tensors}
    return next((one for one in (Verdict.DIFFERS, Verdict.VALUES) if one in verdicts), Verdict.BYTES)


def _totals(totals: Totals) -> dict[str, Any]:
    return {
        "tensors": totals.count,
        "identical_bytes": totals.tensors[Verdict.BYTES],
        "identical_values": totals.tensors[Verdict.VALUES],
        "differ": totals.tensors[Verdict.DIFFERS],
        "share_changed": totals.share_changed,
        "max_error": totals.max_error,
        "rms_error": totals.sums.rms_error,
        "relative_error": number(totals.sums.relative_error),
        "worst_relative_error": number(totals.worst_relative),
        "sqnr_db": number(totals.sums.sqnr_db),
        "lowest_sqnr_db": number(totals.lowest_sqnr_db),
        "cosine": totals.sums.cosine,
    }


def _tensor(one: TensorDrift) -> dict[str, Any]:
    report: dict[str, Any] = {
        "role": one.role,
        "layer": one.layer,
        "verdict": one.verdict.value,
        "encodings": list(one.encodings),
        "stored": list(one.stored),
        "elements": one.elements,
        "unit": one.unit,
        "units": one.units,
        "changed": one.changed,
        "rows_left_out": one.rows_left_out,
    }
    if one.packed is not None:
        shifts = {str(shift): count for shift, count in one.packed.shifts.items()}
        report["packed"] = asdict(one.packed) | {"shifts": shifts}
    if one.worst is None:
        return report
    sums = one.sums
    return report | {
        "max_error": one.max_error,
        "rms_error": sums.rms_error,
        "relative_error": number(sums.relative_error),
        "sqnr_db": number(sums.sqnr_db),
        "cosine": sums.cosine,
        "worst": asdict(one.worst),
        "rows": None if one.rows is None else asdict(one.rows),
    }


def tensor_tables(found: TensorComparison) -> list[Table]:
    """The roles; then, if any tensor differs, the worst of them."""
    return [_role_table(found), *([_worst_table(found)] if found.differing else [])]


def _role_table(found: TensorComparison) -> Table:
    table = plain_table("role", "tensors", "same bytes", "same values", "differ", "changed", "worst error", "SQNR")
    for role, totals in [*found.by_role().items(), ("all", found.totals)]:
        counts = [totals.tensors[verdict] for verdict in Verdict]
        table.add_row(
            role,
            str(totals.count),
            *(str(count) if count else "" for count in counts),
            percent(totals.share_changed) if totals.changed else "",
            relative(totals.worst_relative) if totals.changed else "",
            decibels(totals.lowest_sqnr_db) if totals.changed else "",
        )
    return table


def _worst_table(found: TensorComparison) -> Table:
    table = plain_table(*WORST_COLUMNS, left=("tensor", "where in B"))
    for one in found.differing[:WORST_SHOWN]:
        # Text, not str: names may hold what Rich takes for markup.
        table.add_row(*map(Text, worst_row(one)))
    return table


def worst_row(one: TensorDrift) -> list[str]:
    """A tensor's cells under `WORST_COLUMNS`."""
    assert one.worst is not None
    return [
        one.name,
        relative(one.sums.relative_error),
        decibels(one.sums.sqnr_db),
        f"{one.sums.cosine:.4f}",
        f"{percent(one.share_changed)} of {one.unit}s",
        f"{one.worst.value_a:.4g} → {one.worst.value_b:.4g}",
        place(one.worst),
    ]


def place(spot: Spot) -> str:
    """ "model.layers.0.mlp.experts.down_proj_blocks, expert 3, row 5, block 1, column 40"."""
    named = (("expert", spot.expert), ("row", spot.row), ("block", spot.block), ("column", spot.column))
    return ", ".join([spot.stored, *(f"{name} {number}" for name, number in named if number is not None)])


def percent(share: float) -> str:
    """ "12.3 %"; "100 %" only if it is all, "0 %" only if it is nothing."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if share > 0.99:
        return f"{min(100 * share, 99.99):.2f} %"
    return f"{100 * share:.3g} %" if share > 1e-5 else f"{100 * share:.1e} %"


def relative(error: float) -> str:
    return percent(error) if error < 1 else "∞" if math.isinf(error) else f"{100 * error:,.0f} %"


def decibels(value: float) -> str:
    """ "31.5 dB", "∞", "-∞"."""
    return f"{round(value, 1) + 0.0:.1f} dB" if math.isfinite(value) else "∞" if value > 0 else "-∞"
