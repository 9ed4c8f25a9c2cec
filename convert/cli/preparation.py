"""`prepare`: the right file for a machine or a program, and the command that starts it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import options as opt
from .output import print_json, print_lines, progress_bar
from .sources import opened_source

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..prepare.choose import Choice
    from ..prepare.command import Preparation


def prepare(
    source: opt.Source,
    out: opt.PreparedOut = None,
    purpose: opt.For = opt.PurposeName.auto,
    device: opt.TargetDevice = None,
    context: opt.Context = 16_384,
    scale_rule: opt.ScaleRuleOption = opt.ScaleRuleName.exact,
    like: opt.Like = None,
    tokenizer: opt.Tokenizer = None,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    force: opt.Force = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Say whether the model fits a machine, write the right file for it, prove it, and print what starts it.

    Machines: ampere, turing, ada, hopper, blackwell, mi300, rdna3, apple, cpu.

    Programs: ollama, llama.cpp, lm-studio, vllm, transformers, mlx.
    """
    from ..prepare import report
    from ..prepare.choose import choose
    from ..prepare.command import refuse_output

    silent = as_json or quiet
    choice = choose(purpose.value, device)

    def prepared(*, weights: bool, rate: float | None = None) -> tuple[Preparation, bool]:
        return _prepared(
            source, choice, out, context, scale_rule, like, tokenizer, rate, weights=weights, silent=silent
        )

    # The verdict comes before a download of gigabytes.
    preparation, is_remote = prepared(weights=False)
    if not dry_run:
        refuse_output(preparation, force=force)
    if not silent:
        print_lines(report.preparation_lines(preparation))
    if dry_run:
        if as_json:
            print_json(report.describe_preparation(preparation))
        elif not quiet:
            print_lines(report.start_lines(preparation.commands))
        return
    if is_remote:
        preparation, _ = prepared(weights=True, rate=preparation.rate)
    _run(preparation, prove=not no_verify, force=force, as_json=as_json, quiet=quiet)


def _prepared(
    source: str,
    choice: Choice,
    out: Path | None,
    context: int,
    scale_rule: opt.ScaleRuleName,
    like: str | None,
    tokenizer: str | None,
    rate: float | None,
    *,
    weights: bool,
    silent: bool,
) -> tuple[Preparation, bool]:
    """The preparation, from headers alone unless `weights`, and whether anything comes from the Hub."""
    from ...formats.codecs.mxfp4_scales import ScaleRule
    from ..hub.need import Need
    from ..plan import Quantizing
    from ..prepare.command import prepare_checkpoint

    need = Need.WEIGHTS if weights else Need.PLAN
    with ExitStack() as stack:
        found = stack.enter_context(opened_source(source, need, tokenizer, silent=silent))
        base = stack.enter_context(opened_source(like, need, silent=silent)) if like else None
        quantizing = Quantizing(ScaleRule(scale_rule.value), base.checkpoint if base else None)
        is_remote = found.origin is not None or (base is not None and base.origin is not None)
        return prepare_checkpoint(found.checkpoint, choice, out, context, quantizing, rate), is_remote


def _run(preparation: Preparation, *, prove: bool, force: bool, as_json: bool, quiet: bool) -> None:
    """Writes it, and says what was done and what starts it."""
    from ..prepare import report
    from ..prepare.command import carry_out
    from ..render import done_line, verdict_line

    started = time.monotonic()
    try:
        manifest: Manifest | None = carry_out(preparation, progress_bar(as_json or quiet), prove=prove, force=force)
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was kept", err=True)
        raise typer.Exit(130) from None
    seconds = time.monotonic() - started
    if as_json:
        print_json(report.describe_prepared(preparation, manifest, seconds))
    elif not quiet:
        if manifest is not None:
            print_lines([done_line(manifest, seconds), verdict_line(manifest)])
        print_lines(report.start_lines(preparation.commands))
