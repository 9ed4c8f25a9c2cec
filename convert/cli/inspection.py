"""Commands that look at models and machines, and write nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from ...formats.errors import UsageError
from . import options as opt
from .output import print_json, print_lines, print_table, progress_bar


def inspect(
    source: opt.Source,
    as_json: opt.AsJson = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every stored tensor.")] = False,
) -> None:
    """Show what a checkpoint is: model, layout, true encodings, template, special tokens. Reads headers only."""
    from ..checkpoint import open_checkpoint
    from ..report import describe

    report = describe(open_checkpoint(source), tensors=tensors)
    if as_json:
        print_json(report)
        return
    from .. import render

    print_lines(render.checkpoint_lines(report))
    typer.echo()
    print_table(render.role_table(report["roles"]))
    if tensors:
        typer.echo()
        print_table(render.tensor_table(report["tensors"]))


def validate(
    source: opt.ToValidate = None,
    other: opt.Other = None,
    layers: opt.Layers = "all",
    tokens: opt.Tokens = None,
    device: opt.Device = opt.DeviceName.auto,
    self_test: opt.SelfTest = False,
    tokenizer: opt.Tokenizer = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Run a checkpoint's layers on its stored bytes and compare every stage with a float64 reference."""
    from ..validation.command import run_self_test, run_validation

    if self_test == (source is not None):
        raise UsageError(
            "nothing to validate" if source is None else "--self-test has a model of its own",
            expected="PATH, or --self-test",
        )
    if self_test and (layers != "all" or tokens is not None or tokenizer is not None):
        raise UsageError("--self-test chooses layers, tokens and tokenizer itself", expected="--self-test [--device …]")
    progress = progress_bar(as_json or quiet)
    outcome = (
        run_self_test(device.value, progress)
        if source is None
        else run_validation(source, other, layers, tokens, device.value, tokenizer, progress)
    )
    if as_json:
        print_json(outcome.report)
    elif not quiet or not outcome.holds:
        print_table(outcome.table)
        print_lines(outcome.lines)
    if not outcome.holds:
        raise typer.Exit(1)


def doctor(
    arch: Annotated[
        str | None, typer.Option(metavar="ARCH", help="Another architecture, such as sm_75.", show_default=False)
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Show which way each encoding is computed on this machine, why, and what it costs."""
    from ..doctor import diagnose, doctor_lines

    report = diagnose(arch)
    if as_json:
        print_json(report)
    else:
        print_lines(doctor_lines(report))
