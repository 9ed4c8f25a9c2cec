"""The command line. The only module that prints or exits: 0 good, 1 failed, 2 usage."""

from __future__ import annotations

import gc
import io
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .. import __version__
from ..formats.errors import GptOssConvertError, UsageError
from . import options as opt

if TYPE_CHECKING:
    from .plan import Plan, Quantizing, Target
    from .progress import Progress

# Rich's markup is off: brackets in our help are options and sizes, not styles.
app = typer.Typer(
    name="gptoss-convert",
    help="Convert gpt-oss weights between layouts, byte for byte, and prove every conversion.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gptoss-convert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def inspect(
    source: opt.Source,
    as_json: opt.AsJson = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every stored tensor.")] = False,
) -> None:
    """Show what a checkpoint is: model, layout, true encodings, template, special tokens. Reads headers only."""
    from .checkpoint import open_checkpoint
    from .report import describe

    report = describe(open_checkpoint(source), tensors=tensors)
    if as_json:
        _print_json(report)
        return
    from . import render

    _print_lines(render.checkpoint_lines(report))
    typer.echo()
    _print_table(render.role_table(report["roles"]))
    if tensors:
        typer.echo()
        _print_table(render.tensor_table(report["tensors"]))


@app.command()
def to_gguf(
    source: opt.Source,
    out: opt.NewGguf,
    dense: opt.Dense = opt.DenseType.auto,
    experts: opt.Experts = opt.ExpertType.mxfp4,
    split_max_size: opt.SplitMaxSize = None,
    dialect: opt.Dialect = opt.DialectName.llama_cpp,
    scale_rule: opt.ScaleRuleOption = opt.ScaleRuleName.exact,
    like: opt.Like = None,
    tokenizer: opt.Tokenizer = None,
    pad_vocab: opt.PadVocab = False,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    force: opt.Force = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a GGUF file that llama.cpp runs, and prove that it holds the checkpoint."""
    from .targets.gguf import GgufTarget
    from .targets.sizes import parse_size

    split = None if split_max_size is None else parse_size(split_max_size)
    target = GgufTarget(out, dense.value, experts.value, split, dialect.value)
    planned = _plan(source, target, tokenizer, pad_vocab, _quantizing(scale_rule, like))
    _carry_out(planned, dry_run=dry_run, prove=not no_verify, force=force, as_json=as_json, quiet=quiet)


@app.command()
def to_mxfp4(
    source: opt.Source,
    out: opt.NewDirectory,
    layout: opt.Layout = opt.LayoutName.hf,
    like: opt.Like = None,
    scale_rule: opt.ScaleRuleOption = opt.ScaleRuleName.exact,
    shard_plan: opt.ShardPlan = "official",
    tokenizer: opt.Tokenizer = None,
    pad_vocab: opt.PadVocab = False,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write MXFP4 safetensors, in the official Hugging Face layout or in OpenAI's `original/`."""
    from .targets.hf import HfTarget
    from .targets.original import OriginalTarget
    from .targets.sizes import parse_size

    target: HfTarget | OriginalTarget = HfTarget(out) if layout is opt.LayoutName.hf else OriginalTarget(out)
    if shard_plan != "official":
        target = replace(target, shard_bytes=parse_size(shard_plan))
    planned = _plan(source, target, tokenizer, pad_vocab, _quantizing(scale_rule, like))
    _carry_out(planned, dry_run=dry_run, prove=not no_verify, force=False, as_json=as_json, quiet=quiet)


@app.command()
def to_bf16(
    source: opt.Source,
    out: opt.NewDirectory,
    tokenizer: opt.Tokenizer = None,
    pad_vocab: opt.PadVocab = False,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write BF16 safetensors as transformers has them, to train or to inspect. MXFP4 becomes BF16 exactly."""
    from .targets.bf16 import Bf16Target

    planned = _plan(source, Bf16Target(out), tokenizer, pad_vocab)
    _carry_out(planned, dry_run=dry_run, prove=not no_verify, force=False, as_json=as_json, quiet=quiet)


@app.command()
def to_mlx(
    source: opt.Source,
    out: opt.NewDirectory,
    scale_rule: opt.ScaleRuleOption = opt.ScaleRuleName.exact,
    like: opt.Like = None,
    tokenizer: opt.Tokenizer = None,
    pad_vocab: opt.PadVocab = False,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a directory for mlx-lm on Apple machines: the same MXFP4 bytes, gate and up apart."""
    from .targets.mlx import MlxTarget

    planned = _plan(source, MlxTarget(out), tokenizer, pad_vocab, _quantizing(scale_rule, like))
    _carry_out(planned, dry_run=dry_run, prove=not no_verify, force=False, as_json=as_json, quiet=quiet)


@app.command()
def to_metal(
    source: opt.Source,
    out: opt.NewMetal,
    scale_rule: opt.ScaleRuleOption = opt.ScaleRuleName.exact,
    like: opt.Like = None,
    tokenizer: opt.Tokenizer = None,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    force: opt.Force = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write the model.bin that OpenAI's Metal program runs, with its tokenizer inside."""
    from .targets.metal import MetalTarget

    planned = _plan(source, MetalTarget(out), tokenizer, False, _quantizing(scale_rule, like))
    _carry_out(planned, dry_run=dry_run, prove=not no_verify, force=force, as_json=as_json, quiet=quiet)


@app.command()
def make_demo(
    directory: opt.NewDirectory,
    preset: Annotated[
        opt.PresetName, typer.Option(help="Shapes: a toy, or the true ones (13.8 and 65 GB).")
    ] = opt.PresetName.tiny,
    layers: Annotated[
        int | None, typer.Option(help="Number of layers, if not the preset's.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other weights.")] = 0,
    layout: opt.Layout = opt.LayoutName.hf,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Make every weight zero: files that take no room on the disk.")
    ] = False,
    dry_run: opt.DryRun = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make a checkpoint with random weights, or none, in the official shapes and layout, to try things with."""
    from .demo import plan_demo

    planned = plan_demo(directory, preset.value, layers, seed, layout=layout.value, sparse=sparse)
    _carry_out(planned, dry_run=dry_run, prove=False, force=False, as_json=as_json, quiet=quiet)


@app.command()
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
    from .validation.command import run_self_test, run_validation

    if self_test == (source is not None):
        raise UsageError(
            "nothing to validate" if source is None else "--self-test has a model of its own",
            expected="PATH, or --self-test",
        )
    if self_test and (layers != "all" or tokens is not None or tokenizer is not None):
        raise UsageError("--self-test chooses layers, tokens and tokenizer itself", expected="--self-test [--device …]")
    progress = _progress(as_json or quiet)
    outcome = (
        run_self_test(device.value, progress)
        if source is None
        else run_validation(source, other, layers, tokens, device.value, tokenizer, progress)
    )
    if as_json:
        _print_json(outcome.report)
    elif not quiet or not outcome.holds:
        _print_table(outcome.table)
        _print_lines(outcome.lines)
    if not outcome.holds:
        raise typer.Exit(1)


@app.command()
def doctor(
    arch: Annotated[
        str | None, typer.Option(metavar="ARCH", help="Another architecture, such as sm_75.", show_default=False)
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Show which way each encoding is computed on this machine, why, and what it costs."""
    from .doctor import diagnose, doctor_lines

    report = diagnose(arch)
    if as_json:
        _print_json(report)
    else:
        _print_lines(doctor_lines(report))


def _progress(silent: bool) -> Progress:
    from rich.console import Console

    from .bar import progress_for
    from .progress import Progress

    return Progress() if silent else progress_for(Console(stderr=True))


def _plan(
    source: Path, target: Target, tokenizer: Path | None, pad_vocab: bool, quantizing: Quantizing | None = None
) -> Plan:
    from .checkpoint import open_checkpoint
    from .plan import plan

    return plan(open_checkpoint(source, tokenizer, pad_vocab=pad_vocab), target, quantizing)


def _quantizing(rule: opt.ScaleRuleName, like: Path | None) -> Quantizing:
    """How floats become MXFP4."""
    from ..formats.codecs.mxfp4_scales import ScaleRule
    from .checkpoint import open_checkpoint
    from .plan import Quantizing

    return Quantizing(ScaleRule(rule.value), None if like is None else open_checkpoint(like))


def _carry_out(planned: Plan, *, dry_run: bool, prove: bool, force: bool, as_json: bool, quiet: bool) -> None:
    """Prints the plan or runs it, and says what was done."""
    from . import render
    from .changes import change_lines, describe_changes
    from .report import describe_plan, describe_run
    from .run import run

    silent = as_json or quiet
    report = describe_plan(planned)
    if dry_run:
        if as_json:
            _print_json(report)
        else:
            _print_lines(render.plan_lines(report))
            _print_table(render.role_table(report["roles"]))
        return
    if not silent:
        _print_lines(render.plan_lines(report), to_stderr=True)
    progress = _progress(silent)
    started = time.monotonic()
    try:
        manifest = run(planned, progress, prove=prove, force=force)
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was kept", err=True)
        raise typer.Exit(130) from None
    seconds = time.monotonic() - started
    if as_json:
        _print_json(describe_run(manifest, seconds))
    elif not quiet:
        _print_lines([render.done_line(manifest, seconds)])
        if prove or planned.source_bytes:
            _print_lines([render.verdict_line(manifest)])
        roles = {move.name: move.source.tensor.role for move in planned.moves}
        _print_lines(change_lines(describe_changes(manifest), roles))


def _print_json(report: dict[str, Any]) -> None:
    # ASCII, so that any terminal encoding and any file name give valid JSON.
    typer.echo(json.dumps(report, indent=2))


def _print_lines(lines: list[str], *, to_stderr: bool = False) -> None:
    for line in lines:
        typer.echo(line, err=to_stderr)


def _print_table(table: Any) -> None:
    """Prints a table at its full width: a redirected table is for tools and must not be cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    console.width = max(console.width, needed)
    console.print(table, crop=False, overflow="ignore")


def main() -> NoReturn:
    """The console script: runs a command and turns our errors into one message and an exit code."""
    # A command is short and makes few cycles; looking for them costs a tenth of its start.
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows an escape; that is no failure.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except GptOssConvertError as error:
        _fail(error)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: the output cannot be printed: {error.strerror or error}", err=True)
        sys.exit(1)
    sys.exit(0)


def _fail(error: GptOssConvertError) -> NoReturn:
    """One message on stderr; with --json the error as an object on stdout."""
    if "--json" in sys.argv:
        _print_json({"error": error.fields()})
    else:
        typer.echo(f"error: {error}", err=True)
    sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
