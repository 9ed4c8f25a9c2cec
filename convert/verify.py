"""Proves written files: opens them with our own reader and compares canonical digests with the source's.

The way back shares nothing with the way there but the table of the layout: the container's reader, `unpack` and
`restore` are the inverse functions. What must hold:

1. every planned tensor is there, at its offset, with its type and shape, and nothing else is;
2. every byte of tensor data belongs to exactly one tensor, in the source and in the files written;
3. the canonical digest of every tensor equals the one taken of the source while it was read.

Floats that became MXFP4 without rounding are decoded again and must be the very floats they were. A tensor whose values
had to be rounded (to F16, BF16 or MXFP4) cannot return; then what was written must read back as it was written, as many
blocks of it as were exact must be the source's, and how much changed is said.
"""

from __future__ import annotations

import threading

import numpy as np

from ..formats.codecs.encoding import MXFP4, canonical
from ..formats.codecs.mxfp4 import Mxfp4
from ..formats.codecs.slab import Scratch, Slab, as_f32, restore
from ..formats.digest import TensorDigest
from ..formats.errors import GptOssConvertError, VerificationError
from .checkpoint import Checkpoint
from .manifest import Check, Manifest, Verdict
from .plan import Group, Move, Plan
from .progress import Progress
from .reading import SlabReader
from .stored import StoredTensor
from .transfer import contiguous_planes, packed_digest, source_digest, written_digest
from .workers import run_slabs


def verify(manifest: Manifest, progress: Progress | None = None) -> Verdict:
    """The proof that the manifest's files hold what its source held. Needs a manifest with digests."""
    plan = manifest.plan
    n_files = len(plan.layout.files)
    try:
        written = plan.layout.reopen(manifest.files[:n_files])
    except GptOssConvertError as error:
        return Verdict((Check("the files can be read", False, str(error)),))
    checks = [_check_header(plan, written), _check_accounts(plan, written), _check_texts(manifest)]
    if all(check.holds for check in checks):
        checks.append(_check_digests(manifest, written, progress or Progress()))
    return Verdict(tuple(checks))


def refuse_unproven(manifest: Manifest) -> None:
    """Raises VerificationError unless the manifest's verdict holds."""
    assert manifest.verdict is not None
    if manifest.verdict.holds:
        return
    failure = manifest.verdict.failures[0]
    raise VerificationError(
        f"not true of what was written: {failure.claim}",
        file=manifest.plan.paths[0],
        found=failure.detail,
        remedy="Nothing was kept. Check the disk and the memory of this machine, then run it again; "
        "if it happens again, please report it.",
    )


def _check_header(plan: Plan, written: Checkpoint) -> Check:
    claim = "every planned tensor is there with its type, shape and offset"
    for name, planned in plan.layout.tensors.items():
        found = written.tensors[name]
        if found.encoding is not planned.encoding or _where(found) != _where(planned):
            return Check(claim, False, f"{name}: planned {_where(planned)}, found {_where(found)}")
    return Check(claim, True, f"{len(written.tensors)} tensors")


def _where(stored: StoredTensor) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    arrays = (array for span in stored.spans for array in span.arrays)
    return [(array.name, array.dtype, array.shape, array.offset, array.n_bytes) for array in arrays]


def _check_accounts(plan: Plan, written: Checkpoint) -> Check:
    claim = "every byte is used exactly once"
    try:
        written_bytes = written.account()
    except VerificationError as error:
        return Check(claim, False, str(error))
    parameters = (plan.n_parameters, written.n_parameters)
    if parameters[0] != parameters[1]:
        return Check(claim, False, f"{parameters[0]:,} parameters became {parameters[1]:,}")
    moved = sum(move.source.n_bytes for move in plan.moves)
    left_out = f" ({plan.source_bytes - moved:,} left out)" if plan.source.arrays and moved < plan.source_bytes else ""
    detail = f"each of {moved:,} source bytes used once{left_out}, {written_bytes:,} written"
    return Check(claim, True, detail)


def _check_texts(manifest: Manifest) -> Check:
    claim = "headers and small files read back as they were planned"
    layout = manifest.plan.layout
    expected = [file.header for file in layout.files] + [text for _, text in manifest.texts]
    for path, content in zip(manifest.files, expected, strict=True):
        with path.open("rb") as file:
            if file.read(len(content)) != content:
                return Check(claim, False, f"{path.name} differs")
    return Check(claim, True, f"all {len(expected)} of them")


def _check_digests(manifest: Manifest, written: Checkpoint, progress: Progress) -> Check:
    """Reads everything back and compares digests, tensor by tensor."""
    plan = manifest.plan
    stage = progress.during("verifying", written.n_bytes)
    with stage, written.make_reader() as reader, plan.source.make_reader() as source:
        check = _ReadBack(manifest, written, reader, source, progress)
        run_slabs(plan.groups, check.slab)
    wrong = check.wrong()
    claim = "every tensor's digest equals the source's"
    if wrong:
        others = f", and {len(wrong) - 1} more" if wrong[1:] else ""
        return Check(claim, False, f"{wrong[0]} differs{others}")
    requantized = [name for name, stats in manifest.quantized.items() if stats.blocks_requantized]
    exact = len(manifest.digests) - len(manifest.rounded) - len(requantized)
    if not manifest.rounded and not requantized:
        return Check(claim, True, f"{exact} of {exact} tensors identical")
    detail = f"{exact} tensors identical"
    if manifest.rounded:
        detail += f", {len(manifest.rounded)} rounded in {sum(manifest.rounded.values()):,} values"
    if requantized:
        detail += f", {len(requantized)} quantized and as they were written"
    return Check("every tensor's digest equals the source's, or what its rounding gave", True, detail)


class _ReadBack:
    """Digests the written tensors in the source's canonical form."""

    def __init__(
        self, manifest: Manifest, written: Checkpoint, reader: SlabReader, source: SlabReader, progress: Progress
    ) -> None:
        self._manifest = manifest
        self._written = written
        self._reader = reader
        self._source = source
        self._progress = progress
        self._digests: dict[str, TensorDigest] = {}
        self._packed: dict[str, TensorDigest] = {}
        for move in manifest.plan.moves:
            self._digests[move.name] = written_digest(move) if move.name in manifest.rounded else source_digest(move)
            if move.quantizes:
                self._packed[move.name] = packed_digest(move)
        self._inexact: set[str] = set()
        self._kept: dict[str, int] = {}
        self._lock = threading.Lock()

    def slab(self, group: Group, begin: int, end: int, scratch: Scratch) -> None:
        """Digests rows `begin … end - 1` of the group's tensors."""
        stored = [self._written.tensors[move.target.tensor.name] for move in group.moves]
        slabs = self._reader.load(stored, begin, end, scratch)
        for number, (move, slab) in enumerate(zip(group.moves, slabs, strict=True)):
            if move.name in self._packed:
                self._packed[move.name].update(begin, contiguous_planes(slab, scratch))
            if not self._returns(move):
                self._count_kept(move, slab, begin, end, scratch)
            else:
                if move.name not in self._manifest.rounded:
                    slab = self._restored(move, slab, begin, end, scratch, f"back{number}")
                self._digests[move.name].update(begin, contiguous_planes(slab, scratch))
        n_bytes = sum(tensor.n_bytes // group.rows for tensor in stored) * (end - begin)
        self._progress.advance(n_bytes, stored[-1].spans[0].array.name)

    def _count_kept(self, move: Move, slab: Slab, begin: int, end: int, scratch: Scratch) -> None:
        """Counts the blocks of a requantized tensor that hold the source's floats to the bit."""
        (source,) = self._source.load([move.source], begin, end, scratch.nested("source"))
        floats = [as_f32(found, scratch, name) for found, name in ((slab, "written"), (source, "read"))]
        written, read = (values.view(np.uint32).reshape(-1, MXFP4.block_elements) for values in floats)
        kept = int((written == read).all(axis=1).sum())
        with self._lock:
            self._kept[move.name] = self._kept.get(move.name, 0) + kept

    def _returns(self, move: Move) -> bool:
        """False for a tensor that was requantized: its floats are gone."""
        return not move.quantizes or not self._manifest.quantized[move.name].blocks_requantized

    def _restored(self, move: Move, slab: Slab, begin: int, end: int, scratch: Scratch, name: str) -> Slab:
        """The slab as its source encodes it; the scales of decoded experts are read again from the source."""
        encoding = canonical(move.source.encoding)
        scales = None
        if encoding is MXFP4 and not isinstance(slab, Mxfp4):
            (like,) = self._source.load([move.source], begin, end, scratch.nested("source"))
            assert isinstance(like, Mxfp4)
            scales = like.scales
        restored, n_inexact = restore(slab, encoding, scales, scratch, name)
        if n_inexact:
            self._inexact.add(move.source.tensor.name)
        return restored

    def wrong(self) -> list[str]:
        """Canonical names of the tensors whose digests differ."""
        manifest = self._manifest
        expected = manifest.digests | manifest.rounded_digests
        found = {move.name: self._digests[move.name] for move in manifest.plan.moves if self._returns(move)}
        wrong = {name for name, digest in found.items() if digest.hexdigest() != expected[name]}
        packed = self._packed.items()
        wrong |= {name for name, digest in packed if digest.hexdigest() != manifest.packed_digests[name]}
        wrong |= {name for name, kept in self._kept.items() if kept != manifest.quantized[name].blocks_exact}
        return [move.name for move in manifest.plan.moves if move.name in wrong | self._inexact]
