"""Commands that look at models and machines, and write nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from ...formats.errors import UsageError
from . import options as opt
from .output import print_json, print_lines, print_table, progress_bar
from .sources import opened_source, path_of


def inspect(
    source: opt.Source,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every stored tensor.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Show what a checkpoint is: model, layout, true encodings, template, special tokens. Reads headers only."""
    from ..hub.need import Need
    from ..report import describe

    with opened_source(source, Need.HEADERS, silent=True) as found:
        report = describe(found.checkpoint, tensors=tensors)
        if found.origin is not None:
            report["hub"] = found.origin.fields()
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
            remedy="Give one of the two.",
        )
    if self_test and (layers != "all" or tokens is not None or tokenizer is not None):
        raise UsageError(
            "--self-test chooses layers, tokens and tokenizer itself",
            expected="--self-test [--device …]",
            remedy="Leave them away.",
        )
    silent = as_json or quiet
    progress = progress_bar(silent)
    beside = path_of(tokenizer, tokenizer=True, silent=silent)
    outcome = (
        run_self_test(device.value, progress)
        if source is None
        else run_validation(
            path_of(source, silent=silent),
            path_of(other, silent=silent),
            layers,
            tokens,
            device.value,
            beside,
            progress,
        )
    )
    if as_json:
        print_json(outcome.report)
    elif not quiet or not outcome.holds:
        print_table(outcome.table)
        print_lines(outcome.lines)
    if not outcome.holds:
        raise typer.Exit(1)


def drift(
    a: opt.FirstModel,
    b: opt.SecondModel,
    depth: opt.Depth = opt.DepthName.tensors,
    prompts: opt.Prompts = None,
    tokens: opt.PromptTokens = None,
    no_noise: opt.NoNoise = False,
    as_consumer: opt.AsConsumer = None,
    as_consumer_a: opt.AsConsumerA = None,
    html: opt.Html = None,
    fail_over: opt.FailOver = None,
    tokenizer: opt.Tokenizer = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Measure how far one model is from another, in any two layouts, and say what the difference is."""
    from ..drift.command import Running, run_drift

    silent = as_json or quiet
    consumers = [None if one is None else one.value for one in (as_consumer, as_consumer_a)]
    if html is not None:
        from ..drift.page.file import check_place

        check_place(html)
    outcome = run_drift(
        path_of(a, silent=silent),
        path_of(b, silent=silent),
        depth=depth.value,
        fail_over=fail_over,
        running=Running(prompts, tokens, not no_noise, *consumers),
        tokenizer=path_of(tokenizer, tokenizer=True, silent=silent),
        progress=progress_bar(silent),
    )
    if html is not None:
        from ..drift.html import render_html
        from ..drift.page.file import write_page

        write_page(render_html(outcome), html)
    if as_json:
        print_json(outcome.report)
    elif not quiet or outcome.passed:
        for table in outcome.tables:
            print_table(table)
            typer.echo()
        print_lines(outcome.lines)
    if outcome.passed:
        raise typer.Exit(3)


def doctor(
    arch: Annotated[
        str | None, typer.Option(metavar="ARCH", help="Another architecture, such as sm_75.", show_default=False)
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Show which way each encoding is computed on this machine, why, and what it costs."""
    from ..doctor import diagnose, doctor_lines, need_table

    report = diagnose(arch)
    if as_json:
        print_json(report)
    else:
        print_lines(doctor_lines(report))
        typer.echo()
        print_table(need_table(report))
