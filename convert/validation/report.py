"""What validation found, as data and in words. `docs/json.md` lists the keys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from ..render import plain_table
from ..report import number
from .measures import EMBEDDING, LOGITS, STAGES, Limits, Measure
from .runners import Chosen, PathUsed
from .self_test import Seen
from .validate import TEXT, Validation

# How many stages and experts are named, if more are off.
_MOST_STAGES, _MOST_EXPERTS = 8, 5


def describe_validation(
    found: Validation, path: str, other: str | None, chosen: Chosen, paths: Sequence[PathUsed]
) -> dict[str, Any]:
    """The report of `validate`, as JSON data: no number in it is infinite."""
    ends: dict[str, Any] = {EMBEDDING: None, LOGITS: None}
    layers: dict[int, dict[str, Any]] = {}
    for one in found.measures:
        if one.layer is None:
            ends[one.stage] = _measure(one)
        else:
            layers.setdefault(one.layer, {})[one.stage] = _measure(one)
    worst = found.worst
    return {
        "path": path,
        "other": other,
        "device": {"name": chosen.device.name, "backend": chosen.device.backend, "arch": chosen.device.arch},
        "device_text": chosen.name,
        "paths": [asdict(one) for one in paths],
        "tokens": found.tokens,
        "inputs": "text" if found.inputs == TEXT else "random",
        "inputs_text": found.inputs,
        "limits": {"relative": found.limits.relative, "worst": found.limits.worst},
        "holds": found.holds,
        "farthest": {"layer": worst.layer, "stage": worst.stage} | _measure(worst),
        **ends,
        "layers": [
            {
                "layer": layer,
                "residual_peak": number(found.peak[layer]),
                "experts_unchosen": found.unchosen[layer],
                "stages": stages,
            }
            for layer, stages in layers.items()
        ],
    }


def _measure(one: Measure) -> dict[str, Any]:
    report: dict[str, Any] = {
        "relative": number(one.relative),
        "worst": number(one.worst),
        "excess": number(one.excess),
        "place": list(one.place),
    }
    if one.problem:
        report["problem"] = one.problem
    if one.by_expert:
        report["by_expert"] = {str(expert): number(error) for expert, error in one.by_expert.items()}
    if one.cause is not None:
        report["cause"] = {"text": one.cause.text}
        if one.cause.follows:
            report["cause"]["follows"] = one.cause.follows
        if one.cause.difference is not None:
            report["cause"]["difference"] = {
                key: value for key, value in asdict(one.cause.difference).items() if value is not None
            }
    return report


def stage_table(found: Validation) -> Table:
    """Each stage's largest error over all layers, and in which layer it is."""
    table = plain_table("stage", "relative error", "largest, in RMS", "of its limit", "in layer", left=("stage",))
    for stage in STAGES:
        rows = [one for one in found.measures if one.stage == stage]
        if rows:
            worst = max(rows, key=lambda one: one.excess)
            where = "" if worst.layer is None else str(worst.layer)
            table.add_row(stage, f"{worst.relative:.1e}", f"{worst.worst:.1e}", _share(worst.excess), where)
    return table


def verdict_lines(found: Validation, report: dict[str, Any], n_layers: int, chosen: Chosen) -> list[str]:
    """What was run, and what it says."""
    path, other = report["path"], report["other"]
    subject = path if other is None else f"{path} and {other}"
    measured = [layer["layer"] for layer in report["layers"]]
    layers = f"all {n_layers} layers" if len(measured) == n_layers else f"{_layers(measured)} of {n_layers}"
    lines = [
        f"{subject}: {layers}, {found.tokens} tokens: {found.inputs}",
        f"run on {chosen.name}",
        *(f"  {PathUsed(**one)}" for one in report["paths"]),
    ]
    unchosen = sum(found.unchosen.values())
    if unchosen:
        lines.append(f"{unchosen} experts that no token chose were given a token")
    seconds = f"{report['seconds']:.1f} s"
    if found.holds:
        agree = "every stage agrees with its float64 reference" if other is None else "they agree in every stage"
        share = f"at most {_share(found.worst.excess)} of what rounding explains ({found.worst.name})"
        return [*lines, f"valid: {agree}; {share}; {seconds}"]
    off = [one for one in found.measures if one.excess > 1]
    problem = "apart" if other else "from the float64 reference"
    lines.append(
        f"NOT VALID: {len(off)} of {len(found.measures)} stages are farther {problem} than rounding explains; {seconds}"
    )
    return lines + list(_what_is_off(off, found.limits))


def _what_is_off(off: Sequence[Measure], limits: Limits) -> Iterator[str]:
    """The stages that no earlier one explains, the first ones, with what explains them."""
    sources = [one for one in off if one.cause is None or not one.cause.follows]
    for one in sources[:_MOST_STAGES]:
        yield f"  {one.name}: {_how_far(one)}{_which_experts(one, limits)}"
        if one.cause is not None:
            yield f"    {one.cause.text}"
    if len(sources) > _MOST_STAGES:
        yield f"  … and {len(sources) - _MOST_STAGES} more; --json lists them"


def _how_far(one: Measure) -> str:
    if one.problem:
        return one.problem
    return f"{_share(one.excess)} its limit (relative error {one.relative:.1e}, largest {one.worst:.1e} of the RMS)"


def _which_experts(one: Measure, limits: Limits) -> str:
    """The experts that are off, the farthest first."""
    errors = {expert: math.inf if math.isnan(error) else error for expert, error in one.by_expert.items()}
    wrong = sorted((expert for expert in errors if errors[expert] > limits.relative), key=lambda e: -errors[e])
    if not wrong:
        return ""
    named = ", ".join(f"{expert} ({errors[expert]:.1e})" for expert in wrong[:_MOST_EXPERTS])
    more = ", …" if len(wrong) > _MOST_EXPERTS else ""
    return f"; {len(wrong)} of {len(errors)} experts are off: {named}{more}"


def describe_self_test(failures: list[str], seen: list[Seen], chosen: Chosen, holds: bool) -> dict[str, Any]:
    """The report of `validate --self-test`, as JSON data."""
    return {
        "device": {"name": chosen.device.name, "backend": chosen.device.backend, "arch": chosen.device.arch},
        "device_text": chosen.name,
        "holds": holds,
        "failures": failures,
        "faults": [asdict(one) | {"excess": number(one.excess), "holds": one.holds} for one in seen],
    }


def self_test_lines(failures: list[str], seen: list[Seen], chosen: Chosen, holds: bool) -> list[str]:
    """Where it was run, and what it says."""
    lines = [f"run on {chosen.name}; faults are made on the CPU", *(f"NOT VALID: {failure}" for failure in failures)]
    visible = [one for one in seen if not one.unseen]
    lines += [
        f"{one.fault}: expected in {one.expected}, {f'first seen in {one.stage}' if one.stage else 'not seen'}"
        for one in visible
        if not one.holds
    ]
    n_seen = sum(one.holds for one in visible)
    hidden = f"; {len(seen) - len(visible)} cannot be seen" if len(seen) > len(visible) else ""
    verdict = f"{n_seen} of {len(visible)} faults are seen in the stage where they are made{hidden}"
    return [*lines, f"{'good' if holds else 'BAD'}: {verdict}"]


def fault_table(seen: list[Seen]) -> Table:
    """Each fault, the stage that shows it, and how clearly."""
    table = plain_table(
        "fault", "seen in", "by its error", "times its limit", left=("fault", "seen in", "by its error")
    )
    for one in seen:
        if one.stage:
            table.add_row(one.fault, one.stage, _FIGURES[one.figure], f"{one.excess:,.0f}")
        else:
            table.add_row(one.fault, "", f"cannot be: {one.unseen}" if one.unseen else "NOT SEEN", "")
    return table


_FIGURES = {"relative": "over all elements", "worst": "in one element"}


def _share(excess: float) -> str:
    """A multiple of a limit: "6.86 %", "1,200 times", "∞"."""
    if math.isinf(excess):
        return "∞"
    return f"{100 * excess:.3g} %" if excess <= 1 else f"{excess:,.0f} times"


def _layers(numbers: Sequence[int]) -> str:
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
