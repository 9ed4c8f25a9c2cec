"""What `gptoss-convert validate` does, and what it has to say."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ...formats.errors import UsageError
from ..checkpoint import open_checkpoint
from ..progress import Progress
from ..render import plain_table
from .report import describe_validation, stage_table, verdict_lines
from .runners import choose
from .self_test import Seen, demo_checkpoint, kernel_failures, see_faults
from .validate import validate


@dataclass(frozen=True)
class Outcome:
    """What to print, and whether all is well."""

    holds: bool
    report: dict[str, Any]
    tables: tuple[Table, ...]
    lines: list[str]


def run_validation(
    source: Path,
    other: Path | None,
    layers: str,
    n_tokens: int | None,
    device: str,
    tokenizer: Path | None,
    progress: Progress,
) -> Outcome:
    """Validates the checkpoint at `source`, or the one at `other` beside it."""
    started = time.monotonic()
    checkpoint = open_checkpoint(source, tokenizer)
    compared = None if other is None else open_checkpoint(other, tokenizer)
    chosen = choose(device)
    found = validate(
        checkpoint,
        other=compared,
        layers=_numbers(layers),
        n_tokens=n_tokens,
        make_runner=chosen.make,
        progress=progress,
    )
    report = describe_validation(found, str(source), None if other is None else str(other), chosen.name)
    seconds = time.monotonic() - started
    report["seconds"] = round(seconds, 3)
    return Outcome(found.holds, report, (stage_table(report),), verdict_lines(report, seconds))


def run_self_test(device: str) -> Outcome:
    """Validates a small model in several layouts, then shows that each named fault is seen."""
    chosen = choose(device)
    with demo_checkpoint() as checkpoint:
        failures = kernel_failures(checkpoint, chosen)
        seen = see_faults(checkpoint)
    holds = not failures and all(one.holds for one in seen)
    report = {"device": chosen.name, "holds": holds, "failures": failures, "faults": [vars(one) for one in seen]}
    lines = [f"run on {chosen.name}", *(f"NOT VALID: {failure}" for failure in failures)]
    n_seen = sum(one.holds for one in seen)
    lines.append(f"{'good' if holds else 'BAD'}: {n_seen} of {len(seen)} faults are seen where they are made")
    return Outcome(holds, report, (_fault_table(seen),), lines)


def _fault_table(seen: list[Seen]) -> Table:
    table = plain_table("fault", "seen in", "times its limit", left=("fault", "seen in"))
    for one in seen:
        where = one.stage or f"not at all: {one.unseen or 'this must not be'}"
        table.add_row(one.fault, where, f"{one.excess:,.0f}" if one.stage else "")
    return table


def _numbers(layers: str) -> list[int] | None:
    """The layers named; None for all."""
    if layers == "all":
        return None
    parts = layers.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError("the layers are not numbers", expected="all, or numbers such as 0,1,5", found=repr(layers))
    return [int(part) for part in parts]
