"""Commands that write models."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .output import print_json, print_lines, print_table, progress_bar
from .sources import is_remote, opened_source

if TYPE_CHECKING:
    from ..plan import Plan, Target


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
    from ..targets.gguf import GgufTarget
    from ..targets.sizes import parse_size

    split = None if split_max_size is None else parse_size(split_max_size)
    target = GgufTarget(out, dense.value, experts.value, split, dialect.value)
    planned = plan_of(
        source,
        target,
        tokenizer,
        pad_vocab,
        scale_rule,
        like,
        dry_run=dry_run,
        force=force,
        silent=as_json or quiet,
    )
    carry_out(planned, dry_run=dry_run, prove=not no_verify, force=force, as_json=as_json, quiet=quiet)


def to_mxfp4(
    source: opt.Source,
    out: opt.NewDirectory,
    layout: opt.Layout = opt.LayoutName.hf,
    shard_plan: opt.ShardPlan = "official",
    scale_rule: opt.ScaleRuleOption = opt.ScaleRuleName.exact,
    like: opt.Like = None,
    tokenizer: opt.Tokenizer = None,
    pad_vocab: opt.PadVocab = False,
    dry_run: opt.DryRun = False,
    no_verify: opt.NoVerify = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write MXFP4 safetensors, in the official Hugging Face layout or in OpenAI's `original/`."""
    from ..targets.hf import HfTarget
    from ..targets.original import OriginalTarget
    from ..targets.sizes import parse_size

    target: HfTarget | OriginalTarget = HfTarget(out) if layout is opt.LayoutName.hf else OriginalTarget(out)
    if shard_plan != "official":
        target = replace(target, shard_bytes=parse_size(shard_plan))
    planned = plan_of(source, target, tokenizer, pad_vocab, scale_rule, like, dry_run=dry_run, silent=as_json or quiet)
    carry_out(planned, dry_run=dry_run, prove=not no_verify, force=False, as_json=as_json, quiet=quiet)


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
    from ..targets.bf16 import Bf16Target

    planned = plan_of(source, Bf16Target(out), tokenizer, pad_vocab, dry_run=dry_run, silent=as_json or quiet)
    carry_out(planned, dry_run=dry_run, prove=not no_verify, force=False, as_json=as_json, quiet=quiet)


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
    from ..targets.mlx import MlxTarget

    planned = plan_of(
        source, MlxTarget(out), tokenizer, pad_vocab, scale_rule, like, dry_run=dry_run, silent=as_json or quiet
    )
    carry_out(planned, dry_run=dry_run, prove=not no_verify, force=False, as_json=as_json, quiet=quiet)


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
    from ..targets.metal import MetalTarget

    planned = plan_of(
        source,
        MetalTarget(out),
        tokenizer,
        False,
        scale_rule,
        like,
        dry_run=dry_run,
        force=force,
        silent=as_json or quiet,
    )
    carry_out(planned, dry_run=dry_run, prove=not no_verify, force=force, as_json=as_json, quiet=quiet)


def make_demo(
    directory: opt.NewDirectory,
    preset: Annotated[
        opt.PresetName, typer.Option(help="Shapes: a toy, or the true ones (13.8 and 65 GB).")
    ] = opt.PresetName.tiny,
    layers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of layers, if not the preset's.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another seed, other weights.")] = 0,
    layout: opt.Layout = opt.LayoutName.hf,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Make every weight zero: files that take no room on the disk.")
    ] = False,
    dry_run: opt.DryRun = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make a checkpoint with random weights, or none, in the official shapes and layout, to try things with."""
    from ..demo import plan_demo

    planned = plan_demo(directory, preset.value, layers, seed, layout=layout.value, sparse=sparse)
    carry_out(planned, dry_run=dry_run, prove=False, force=False, as_json=as_json, quiet=quiet)


def plan_of(
    source: str,
    target: Target,
    tokenizer: str | None,
    pad_vocab: bool,
    scale_rule: opt.ScaleRuleName = opt.ScaleRuleName.exact,
    like: str | None = None,
    *,
    dry_run: bool,
    force: bool = False,
    silent: bool,
) -> Plan:
    """The plan of a conversion. For a dry run nothing but headers comes from the Hub.

    What cannot be converted, or has no place to be written, is refused before a download of gigabytes.
    """
    from ...formats.codecs.mxfp4_scales import ScaleRule
    from ..hub.need import Need
    from ..plan import Quantizing, plan
    from ..run import refuse_output

    def planned(need: Need) -> Plan:
        with ExitStack() as stack:
            found = stack.enter_context(opened_source(source, need, tokenizer, pad_vocab=pad_vocab, silent=silent))
            base = stack.enter_context(opened_source(like, need, silent=silent)).checkpoint if like else None
            return plan(found.checkpoint, target, Quantizing(ScaleRule(scale_rule.value), base))

    if dry_run:
        return planned(Need.PLAN)
    if is_remote(source) or (like is not None and is_remote(like)):
        refuse_output(planned(Need.PLAN), force=force)
    return planned(Need.WEIGHTS)


def carry_out(planned: Plan, *, dry_run: bool, prove: bool, force: bool, as_json: bool, quiet: bool) -> None:
    """Prints the plan or runs it, and says what was done."""
    from .. import render
    from ..changes import change_lines, describe_changes
    from ..report import describe_plan, describe_run
    from ..run import refuse_output, run

    silent = as_json or quiet
    if not dry_run:
        refuse_output(planned, force=force)
    if dry_run:
        report = describe_plan(planned)
        if as_json:
            print_json(report)
        else:
            print_lines(render.plan_lines(report))
            print_table(render.role_table(report["roles"]))
        return
    if not silent:
        print_lines(render.plan_lines(describe_plan(planned)), to_stderr=True)
    progress = progress_bar(silent)
    started = time.monotonic()
    try:
        manifest = run(planned, progress, prove=prove, force=force)
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was kept", err=True)
        raise typer.Exit(130) from None
    seconds = time.monotonic() - started
    if as_json:
        print_json(describe_run(manifest, seconds))
    elif not quiet:
        print_lines([render.done_line(manifest, seconds)])
        if prove or planned.source_bytes:
            print_lines([render.verdict_line(manifest)])
        roles = {move.name: move.source.tensor.role for move in planned.moves}
        print_lines(change_lines(describe_changes(manifest), roles))
