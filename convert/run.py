"""Runs a plan: slabs from a small pool of threads, written in place at planned offsets, proven, then named."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..formats.codecs.accelerate import prepare
from ..formats.errors import GptOssConvertError, OutputError
from ..formats.files import DataFile, open_data_file, sync_directory
from .manifest import Manifest
from .plan import Plan
from .progress import Progress
from .quantize import Quantizer
from .staging import Staging, refuse_existing, require_parent
from .transfer import SlabMover
from .verify import refuse_unproven, verify
from .workers import run_slabs

_NO_ACCESS = "Choose a directory that you may write to."
_DISK = "Check the disk, and run the same command again."
_REMEDIES = {
    errno.ENOSPC: "Free some space or write to another disk.",
    errno.EFBIG: "This disk or account does not allow files so large; use --split-max-size.",
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: _NO_ACCESS,
}


def run(plan: Plan, progress: Progress | None = None, *, prove: bool = True, force: bool = False) -> Manifest:
    """Writes the plan's files and proves them; only then do they get their names.

    Args:
        plan: what to do.
        progress: told of every slab.
        prove: digest the source while reading it, read everything back and compare (see `verify`).
        force: replace outputs that exist.

    Raises:
        OutputError: it exists already, no space, no permission, another run.
        CodecError, CheckpointError: the source holds invalid values, or changed while it was read.
        VerificationError: the written files do not hold what the source held.
        In every case nothing is left behind, and what was there before is untouched.
    """
    progress = progress or Progress()
    staging = Staging(plan)
    with _os_errors(plan, staging):
        refuse_existing(plan, force=force)
        with staging.prepared():
            manifest = _write(plan, staging, progress, digest=prove)
            if prove:
                manifest = replace(manifest, verdict=verify(manifest, progress))
                refuse_unproven(manifest)
            staging.commit()
    return replace(manifest, files=tuple(plan.paths))


def refuse_output(plan: Plan, *, force: bool, makes_directory: bool = False) -> None:
    """Raises OutputError if the outputs have no place to be: so much is known before the first byte is read.

    Args:
        plan: what is to be done.
        force: replace outputs that exist.
        makes_directory: the directory that they lie in is made when it is missing.
    """
    with _os_errors(plan, Staging(plan)):
        refuse_existing(plan, force=force)
        if not makes_directory:
            require_parent(plan)


def _write(plan: Plan, staging: Staging, progress: Progress, *, digest: bool) -> Manifest:
    """Writes everything under temporary names and syncs it to the disk."""
    layout, like = plan.layout, plan.quantizing.like
    with ExitStack() as stack:
        stack.enter_context(progress.during("writing", sum(move.source.n_bytes for move in plan.moves)))
        outputs = {file.path: _create(stack, staging.path(file.path), file.header) for file in layout.files}
        for file in layout.files:
            outputs[file.path].resize(file.n_bytes, sparse=plan.is_sparse)
        reader = stack.enter_context(plan.source.make_reader())
        threading.Thread(target=prepare, daemon=True).start()
        quantizer = Quantizer(plan, reader, stack.enter_context(like.make_reader()) if like else None)
        mover = SlabMover(plan, reader, quantizer, outputs, progress, digest=digest)
        if not plan.source.is_blank:
            run_slabs(plan.groups, mover.move)
        manifest = _manifest(plan, staging, mover, quantizer)
        for path, text in manifest.texts:
            outputs[path] = _create(stack, staging.path(path), text)
        for output in outputs.values():
            output.sync()
    if layout.atomic_directory is not None:
        sync_directory(staging.path(plan.paths[0]).parent)
    return manifest


def _create(stack: ExitStack, path: Path, text: bytes) -> DataFile:
    output = stack.enter_context(open_data_file(path, create=True))
    output.write_at(memoryview(text), 0)
    return output


def _manifest(plan: Plan, staging: Staging, mover: SlabMover, quantizer: Quantizer) -> Manifest:
    digests = {name: digest.hexdigest() for name, digest in mover.digests.items()}
    texts, closing = plan.layout.texts, plan.layout.closing
    if closing is not None:
        text = closing.text(digests)
        assert len(text) == closing.n_bytes
        texts += ((closing.path, text),)
    return Manifest(
        plan,
        files=tuple(staging.path(path) for path in plan.paths),
        texts=texts,
        digests=digests,
        rounded={move.name: mover.rounded[move.name] for move in plan.moves if move.name in mover.rounded},
        rounded_digests={name: mover.written[name].hexdigest() for name in mover.rounded if name in mover.written},
        quantized=quantizer.stats,
        packed_digests={name: digest.hexdigest() for name, digest in mover.packed.items()},
        differs=mover.differs,
    )


@contextmanager
def _os_errors(plan: Plan, staging: Staging) -> Iterator[None]:
    """Turns what the operating system says into an error of ours that names the file and the remedy."""
    try:
        yield
    except GptOssConvertError:
        raise
    except OSError as error:
        sources = {str(file) for file in plan.source.files}
        reading = error.filename is not None and str(error.filename) in sources
        finals = {str(staging.path(final)): final for final in plan.paths}
        raise OutputError(
            f"the file cannot be {'read' if reading else 'written'}: {error.strerror or error}",
            file=error.filename if reading else finals.get(str(error.filename), plan.paths[0]),
            remedy="Check the file's permissions." if reading else _REMEDIES.get(error.errno or 0, _DISK),
        ) from error
