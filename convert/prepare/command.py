"""`prepare`: a choice, a verdict, a plan and the commands, all before the first byte; then the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...formats.errors import OutputError, UsageError
from ...formats.files import free_bytes
from ...model.layouts import gguf
from ..checkpoint import Checkpoint, open_checkpoint
from ..manifest import Manifest
from ..plan import Quantizing
from ..progress import Progress
from ..run import refuse_output as refuse_planned
from ..run import run
from .choose import Choice, choose
from .commands import Command, commands
from .consumers import BF16, GGUF, READS, WAYS, Way, way_of
from .fit import Remedy, Setting, Verdict, card_counts, judge
from .machines import MIB, Machine
from .model import ModelBytes, decoded, packed, stored_bytes
from .output import Output, plan_output
from .speed import PROBE_BYTES, existing, write_rate

DEFAULT_CONTEXT = 16_384
# Remedies that the printed commands carry out.
_APPLIED = ("wired-limit", "n-cpu-moe")


@dataclass(frozen=True)
class Alternative:
    """Another program on the same machine; `way` and `verdict` are None if it does not run the model there."""

    consumer: str
    way: Way | None
    weights: int | None
    verdict: Verdict | None


@dataclass(frozen=True)
class Preparation:
    """Everything that is known before the first byte is written.

    Args:
        checkpoint: the source.
        choice: the consumer and the machine.
        setting: how the consumer will be started; with `applied`, if that is one of the verdict's remedies.
        verdict: whether it fits when started as asked for.
        output: what will be written.
        commands: what starts it.
        alternatives: what else runs there.
        rate: bytes per second of the disk, if it was measured.
        free: bytes free on that disk.
        writes_zeros: true if what is written takes no room.
    """

    checkpoint: Checkpoint
    choice: Choice
    setting: Setting
    verdict: Verdict
    applied: Remedy | None
    output: Output
    commands: tuple[Command, ...]
    alternatives: tuple[Alternative, ...]
    rate: float | None
    free: int
    writes_zeros: bool


def prepare(
    source: str | Path,
    purpose: str,
    out: Path | None = None,
    *,
    device: str | None = None,
    context: int = DEFAULT_CONTEXT,
    tokenizer: Path | None = None,
) -> Preparation:
    """What `--for purpose` comes to for the checkpoint at the path `source`. Writes nothing that stays.

    Args:
        source: any checkpoint.
        purpose: one of `choose.PURPOSES`.
        out: where to write; a name of its own in the current directory if None.
        device: a name of the table of machines; the machine at hand, or the family's example, if None.
        context: tokens of prompt and answer together that there must be room for.
        tokenizer: a directory whose tokenizer is to be used instead of the checkpoint's.

    Raises:
        GptOssConvertError: the source cannot be read or cannot become that, or the request contradicts itself.
    """
    choice = choose(purpose, device)
    return prepare_checkpoint(open_checkpoint(source, tokenizer), choice, out, context)


def prepare_checkpoint(
    checkpoint: Checkpoint,
    choice: Choice,
    out: Path | None = None,
    context: int = DEFAULT_CONTEXT,
    quantizing: Quantizing | None = None,
    rate: float | None = None,
) -> Preparation:
    """The same of a checkpoint that is open, for a choice that is made.

    `quantizing` says how floats become MXFP4; `rate` is the disk's, if it was measured before.
    """
    _check_context(checkpoint, context)
    output = plan_output(checkpoint, choice.consumer, out, context, quantizing)
    model, asked = _model(checkpoint, choice, output), Setting(choice.consumer, context)
    asked = _over_all_cards(model, choice.machine, asked)
    verdict = judge(model, choice.machine, asked)
    applied = next((remedy for remedy in verdict.remedies if remedy.kind in _APPLIED), None)
    setting = applied.setting if applied is not None and applied.setting is not None else asked
    wired = -(-verdict.needs.total // MIB) if applied is not None and applied.kind == "wired-limit" else None
    disk = existing(output.sizes[0][0].parent if output.sizes else Path())
    zeros = output.plan is not None and checkpoint.path.exists() and output.plan.is_sparse
    return Preparation(
        checkpoint,
        choice,
        setting,
        verdict,
        applied,
        output,
        tuple(commands(setting, output, choice.machine, choice.way, wired_mib=wired)),
        tuple(_alternatives(checkpoint, choice, context)),
        (rate or write_rate(disk)) if output.n_bytes >= PROBE_BYTES and not zeros else None,
        free_bytes(disk),
        zeros,
    )


def carry_out(
    preparation: Preparation, progress: Progress | None = None, *, prove: bool = True, force: bool = False
) -> Manifest | None:
    """Writes what was planned; returns what was done, or None if there was nothing to convert.

    Raises:
        OutputError and what `run` raises. Nothing is left behind then.
    """
    output = preparation.output
    with _directories(output):
        if output.plan is not None:
            return run(output.plan, progress, prove=prove, force=force)
        for path, text in output.texts:
            _write(path, text, force=force)
    return None


def refuse_output(preparation: Preparation, *, force: bool = False) -> None:
    """Raises OutputError if what would be written is there already, or has no place to be."""
    output = preparation.output
    if output.plan is not None:
        refuse_planned(output.plan, force=force, makes_directory=True)
    for path, _ in output.texts:
        _refuse_existing(path, force=force)


def _check_context(checkpoint: Checkpoint, context: int) -> None:
    most = checkpoint.config.max_position_embeddings
    if not 1 <= context <= most:
        raise UsageError(
            "the model does not have so many positions",
            expected=f"--context 1 to {most}",
            found=f"--context {context}",
            remedy=f"Use --context {most} or less.",
        )


def _model(checkpoint: Checkpoint, choice: Choice, output: Output) -> ModelBytes:
    """The model as the consumer will have it in memory."""
    if choice.way is not None and choice.way.experts == BF16:
        return decoded(checkpoint.config)
    tensors = checkpoint.tensors if output.plan is None else output.plan.layout.tensors
    return stored_bytes(checkpoint.config, tensors)


def _over_all_cards(model: ModelBytes, machine: Machine | None, setting: Setting) -> Setting:
    """The setting with as few of the cards at hand as hold the model; with one if not even all do."""
    if machine is None or machine.count == 1:
        return setting
    for cards in card_counts(setting.consumer, machine.count):
        changed = replace(setting, cards=cards)
        if judge(model, machine, changed).fits:
            return changed
    return setting


def _alternatives(checkpoint: Checkpoint, choice: Choice, context: int) -> Iterator[Alternative]:
    """The other consumers on the same machine, with what they would need."""
    config, machine = checkpoint.config, choice.machine
    if machine is None:
        return
    for consumer in WAYS:
        way = way_of(consumer, machine)
        if consumer == choice.consumer:
            continue
        if way is None:
            yield Alternative(consumer, None, None, None)
            continue
        f32_roles = gguf.F32_ROLES if READS[consumer] == GGUF else ()
        model = decoded(config) if way.experts == BF16 else packed(config, f32_roles=f32_roles)
        yield Alternative(consumer, way, model.total, judge(model, machine, Setting(consumer, context)))


@contextlib.contextmanager
def _directories(output: Output) -> Iterator[None]:
    """Makes the directories that the output lies in, and removes those that it made if nothing came of it."""
    made: list[Path] = []
    try:
        for directory in output.directories:
            missing = [path for path in (directory, *directory.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir()
                made.append(path)
        yield
    except OSError as error:
        _remove(made)
        raise OutputError(
            f"the directory cannot be made: {error.strerror or error}",
            file=error.filename or output.path,
            remedy="Choose a directory that you may write to.",
        ) from error
    except BaseException:
        _remove(made)
        raise


def _remove(directories: list[Path]) -> None:
    for path in reversed(directories):
        with contextlib.suppress(OSError):
            path.rmdir()


def _write(path: Path, text: bytes, *, force: bool) -> None:
    _refuse_existing(path, force=force)
    path.write_bytes(text)


def _refuse_existing(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise OutputError("the output exists already", file=path, remedy="Use --force to replace it.")
