"""What `gptoss-convert drift` does, and what it has to say.

Each depth runs itself alone: `layers` and `logits` do not compare tensors first. Configs and tokenizers are compared at
every depth.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..checkpoint import Checkpoint, open_checkpoint
from ..progress import Progress
from ..report import number
from .compare import Compared, Running, config_differences, drift, require_options
from .fail_over import TENSORS, Limit, Passed, parse_limits, passed
from .tokenizers import TokenizerDifference, tokenizer_differences

__all__ = ["Outcome", "Running", "run_drift"]


@dataclass(frozen=True)
class Outcome:
    """What to print, and which limits of `--fail-over` were passed: exit code 3 if any was.

    Attributes:
        report: for `--json`.
        tables, lines: for a terminal.
        passed: limits on the wrong side of which a figure is.
        compared: the comparison itself, for `--html`.
        checkpoints: A and B.
    """

    report: dict[str, Any]
    tables: list[Table]
    lines: list[str]
    passed: tuple[Passed, ...]
    compared: Compared
    checkpoints: tuple[Checkpoint, Checkpoint]


def run_drift(
    a: Path,
    b: Path,
    *,
    depth: str = TENSORS,
    fail_over: str | None = None,
    running: Running | None = None,
    tokenizer: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Compares the checkpoint at `b` with the one at `a`.

    Raises:
        UsageError: an option that is none, two models of other shapes.
        GptOssConvertError: one of them cannot be read, or holds a weight that is not finite.
    """
    started = time.monotonic()
    running, progress = running or Running(), progress or Progress()
    require_options(depth, running)
    limits = parse_limits(fail_over, depth)
    first, second = open_checkpoint(a, tokenizer), open_checkpoint(b, tokenizer)
    compared = drift(first, second, depth=depth, running=running, progress=progress)
    configs = config_differences(first, second)
    tokenizers = tokenizer_differences(first, second)
    figures = compared.figures()
    over = passed(limits, figures)
    report = {
        "a": _describe(first),
        "b": _describe(second),
        "depth": depth,
        "config_differences": [{"key": key, "a": of_a, "b": of_b} for key, of_a, of_b in configs],
        "tokenizer_differences": [{"key": one.key, "a": one.a, "b": one.b} for one in tokenizers],
        "figures": {name: number(value) for name, value in figures.items()},
        "fail_over": _describe_limits(limits, figures),
        depth: compared.describe(),
        "seconds": round(time.monotonic() - started, 3),
    }
    lines = _notes(first, second, configs if depth != TENSORS else [], tokenizers) + compared.lines()
    lines += [f"over the limit: {one}" for one in over]
    return Outcome(report, compared.tables(), lines, over, compared, (first, second))


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "path": str(checkpoint.path),
        "layout": checkpoint.layout,
        "model_name": checkpoint.model_name,
        "tensor_bytes": checkpoint.n_bytes,
        "notes": list(checkpoint.notes),
    }


def _describe_limits(limits: tuple[Limit, ...], found: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": limit.name,
            "fails": limit.fails,
            "limit": number(limit.value),
            "figure": number(found[limit.name]),
            "passed": limit.is_passed(found[limit.name]),
        }
        for limit in limits
    ]


def _notes(
    a: Checkpoint, b: Checkpoint, configs: list[tuple[str, Any, Any]], tokenizers: tuple[TokenizerDifference, ...]
) -> list[str]:
    notes = [f"note: {name}: {note}" for name, checkpoint in (("A", a), ("B", b)) for note in checkpoint.notes]
    notes += [f"note: their configs differ in {key}: {of_a} and {of_b}" for key, of_a, of_b in configs]
    return notes + [f"note: their tokenizers differ in {one}" for one in tokenizers]
