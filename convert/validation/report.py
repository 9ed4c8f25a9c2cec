"""What validation found, as data and in words."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from ..render import plain_table
from .measures import STAGES, Measure
from .validate import Validation


def describe_validation(found: Validation, path: str, other: str | None, device: str) -> dict[str, Any]:
    """The report of `validate`, as JSON data."""
    layers = sorted({one.layer for one in found.measures})
    return {
        "path": path,
        "other": other,
        "device": device,
        "tokens": found.tokens,
        "inputs": found.inputs,
        "limits": {"relative": found.limits.relative, "worst": found.limits.worst},
        "holds": found.holds,
        "worst": _measure(found.worst) | {"layer": found.worst.layer, "stage": found.worst.stage},
        "layers": [
            {
                "layer": layer,
                "residual_peak": found.peak[layer],
                "stages": {one.stage: _measure(one) for one in found.measures if one.layer == layer},
            }
            for layer in layers
        ],
    }


def _measure(one: Measure) -> dict[str, Any]:
    report: dict[str, Any] = {
        "relative": _number(one.relative),
        "worst": _number(one.worst),
        "excess": _number(one.excess),
        "place": list(one.place),
    }
    if one.by_expert:
        report["by_expert"] = {str(expert): _number(error) for expert, error in one.by_expert.items()}
    return report | ({"where": one.where} if one.where else {})


def stage_table(report: dict[str, Any]) -> Table:
    """Each stage's largest error over all layers, and in which layer it is."""
    table = plain_table("stage", "relative error", "largest, in RMS", "of its limit", "in layer", left=("stage",))
    for stage in STAGES:
        rows = [(layer["stages"][stage], layer["layer"]) for layer in report["layers"]]
        worst, where = max(rows, key=lambda row: math.inf if row[0]["excess"] is None else row[0]["excess"])
        shown = [math.inf if worst[key] is None else worst[key] for key in ("relative", "worst", "excess")]
        table.add_row(stage, f"{shown[0]:.1e}", f"{shown[1]:.1e}", _percent(shown[2]), str(where))
    return table


def verdict_lines(report: dict[str, Any], seconds: float) -> list[str]:
    """What was run, and what it says."""
    subject = report["path"] + (f", beside {report['other']}" if report["other"] else "")
    run = f"{len(report['layers'])} layers, {report['tokens']} tokens ({report['inputs']}), on {report['device']}"
    worst = report["worst"]
    place = f"{worst['stage']} of layer {worst['layer']}"
    if report["holds"]:
        share = f"at most {_percent(worst['excess'])} of what rounding explains ({place})"
        return [f"{subject}: {run}", f"valid: every stage agrees with the float64 reference, {share}; {seconds:.1f} s"]
    first = next(
        (layer["layer"], stage, found)
        for layer in report["layers"]
        for stage, found in layer["stages"].items()
        if found["excess"] is None or found["excess"] > 1
    )
    how_far = "is not finite" if worst["excess"] is None else f"is {worst['excess']:,.3g} times farther off than that"
    return [
        f"{subject}: {run}",
        f"NOT VALID: a stage is farther from the float64 reference than rounding explains: {place} {how_far}; "
        f"{seconds:.1f} s",
        f"first seen in {first[1]} of layer {first[0]}: {first[2].get('where', 'not located')}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _number(value: float) -> float | None:
    """The number; None if it is not finite, which JSON cannot say."""
    return value if math.isfinite(value) else None
