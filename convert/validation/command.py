"""What `gptoss-convert validate` does, and what it has to say."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ...formats.errors import UsageError
from ..checkpoint import Checkpoint, open_checkpoint
from ..config_differences import differing_keys
from ..progress import Progress
from .report import (
    describe_self_test,
    describe_validation,
    fault_table,
    self_test_lines,
    stage_table,
    verdict_lines,
)
from .runners import Chosen, PathUsed, choose
from .self_test import demo_checkpoint, kernel_failures, see_faults
from .stages import ATTENTION, PROJECTIONS
from .validate import validate


@dataclass(frozen=True)
class Outcome:
    """What to print, and whether all is well."""

    holds: bool
    report: dict[str, Any]
    table: Table
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
    """Validates the checkpoint at `source`, or the one at `other` beside it. Raises GptOssConvertError."""
    started = time.monotonic()
    numbers = _numbers(layers)
    checkpoint = open_checkpoint(source, tokenizer)
    compared = None if other is None else open_checkpoint(other)
    chosen = choose(device)
    found = validate(
        checkpoint,
        other=compared,
        layers=numbers,
        n_tokens=n_tokens,
        make_runner=chosen.make,
        progress=progress,
    )
    used = paths_used(compared or checkpoint, sorted(found.unchosen), chosen)
    report = describe_validation(found, str(source), None if other is None else str(other), chosen, used)
    report["config_differences"] = _config_differences(checkpoint, compared)
    report["seconds"] = round(time.monotonic() - started, 3)
    lines = verdict_lines(found, report, checkpoint.config.num_hidden_layers, chosen)
    lines[1:1] = [
        f"note: their configs differ in {one['key']}: {one['a']} and {one['b']}" for one in report["config_differences"]
    ]
    return Outcome(found.holds, report, stage_table(found), lines)


def run_self_test(device: str, progress: Progress) -> Outcome:
    """Validates a small model in several layouts, then shows that each named fault is seen."""
    chosen = choose(device, test=False)
    with demo_checkpoint() as checkpoint:
        failures = kernel_failures(checkpoint, chosen)
        seen = see_faults(checkpoint, progress)
    holds = not failures and all(one.holds for one in seen)
    said = failures, seen, chosen, holds
    return Outcome(holds, describe_self_test(*said), fault_table(seen), self_test_lines(*said))


def paths_used(checkpoint: Checkpoint, layers: list[int], chosen: Chosen) -> list[PathUsed]:
    """How these layers were multiplied: one entry for each encoding of attention's projections and of the experts."""
    modules = [("attention", f"attention.{name}") for name in ATTENTION]
    modules += [("experts", f"moe.{name}") for name in PROJECTIONS]
    names = [(part, f"layers.{layer}.{module}.weight") for part, module in modules for layer in layers]
    found = dict.fromkeys((part, checkpoint.tensors[name].encoding) for part, name in names)
    return [chosen.path(part, encoding) for part, encoding in found]


def _config_differences(checkpoint: Checkpoint, other: Checkpoint | None) -> list[dict[str, Any]]:
    pairs = [] if other is None else differing_keys(checkpoint.config, other.config)
    return [{"key": key, "a": of_a, "b": of_b} for key, of_a, of_b in pairs]


def _numbers(layers: str) -> list[int] | None:
    """The layers named; None for all."""
    if layers == "all":
        return None
    parts = layers.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(
            "the layers are not numbers",
            expected="all, or numbers such as 0,1,5",
            found=repr(layers),
            remedy="Write it as in --layers 0,1,5.",
        )
    return [int(part) for part in parts]
