"""The weights of a checkpoint as torch tensors, whatever the layout; only what is asked for is read and decoded."""

from __future__ import annotations

import re
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from ..formats.codecs.encoding import BF16, F16, F32, Encoding
from ..formats.codecs.slab import ELEMENT, Scratch, pack
from .checkpoint import Checkpoint
from .placed import placed
from .plan import SLAB_BYTES
from .stored import StoredTensor
from .transfer import refuse_invalid

# A dtype, and what weights are decoded to on the way to it. Float32 holds every value of every encoding.
_DECODED: dict[torch.dtype, Encoding] = {
    torch.bfloat16: BF16,
    torch.float16: F16,
    torch.float32: F32,
    torch.float64: F32,
}


class CheckpointWeights:
    """The `Weights` of `checkpoint`, in `dtype`. Used as a context, by one thread.

    Tensors are put into buffers that are used again: one for each tensor of a layer, so the buffers hold one layer's
    dense tensors and one expert. A tensor is valid until the same one of another layer, another expert of it, or
    other rows of it are asked for.

    Args:
        checkpoint: any that `open_checkpoint` gives.
        dtype: bfloat16, float16, float32 or float64. Values that it cannot hold are rounded to nearest.
    """

    def __init__(self, checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32) -> None:
        assert dtype in _DECODED
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._reader = checkpoint.make_reader()
        self._reading, self._buffers = Scratch(), Scratch()

    def dense(self, name: str) -> torch.Tensor:
        """The whole tensor, in its canonical shape. Raises CodecError, OSError: as `rows`."""
        stored = self._checkpoint.tensors[name]
        return self._decoded(stored, [(0, stored.tensor.rows)]).view(stored.tensor.shape)

    def rows(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """Rows `ids` (int64 [n]) of a matrix: [n, columns]. Ids that follow each other are read together.

        Raises:
            CodecError: a value is not finite, or too large for the dtype; file, tensor, row and block are named.
            OSError: the file cannot be read.
        """
        numbers = ids.cpu().numpy()
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
        return self._decoded(self._checkpoint.tensors[name], [(int(run[0]), int(run[-1]) + 1) for run in runs])

    def expert(self, name: str, expert: int) -> torch.Tensor:
        """One expert's matrix [outputs, inputs]. Raises CodecError, OSError: as `rows`."""
        stored = self._checkpoint.tensors[name]
        n_rows = stored.tensor.matrix_rows
        return self._decoded(stored, [(expert * n_rows, (expert + 1) * n_rows)])

    def _decoded(self, stored: StoredTensor, runs: list[tuple[int, int]]) -> torch.Tensor:
        """The canonical rows of all `runs` (begin, end), one after the other, in the tensor's buffer."""
        encoding, cols = _DECODED[self._dtype], stored.tensor.cols
        shape = (sum(end - begin for begin, end in runs), cols)
        # Without its layer, so that the next layer's tensor takes the place of this one's.
        name = re.sub(r"^layers\.\d+\.", "", stored.tensor.name)
        values = self._buffers.array(name, shape, ELEMENT[encoding.name])
        out, filled = values.view(np.uint8).reshape(shape[0], encoding.row_bytes(cols)), 0
        for run in runs:
            for begin, end in _slabs(stored, *run):
                self._decode(stored, begin, end, encoding, out[filled : filled + end - begin])
                filled += end - begin
        if self._dtype is torch.float64:
            # New memory is slow: the wide copy has a buffer of its own.
            wide = torch.from_numpy(self._buffers.array(f"{name}.wide", shape, np.dtype(np.float64)))
            return wide.copy_(torch.from_numpy(values))
        if encoding is F32:
            return torch.from_numpy(values)
        return torch.from_numpy(values.view(np.int16)).view(self._dtype)

    def _decode(self, stored: StoredTensor, begin: int, end: int, encoding: Encoding, out: NDArray[np.uint8]) -> None:
        (slab,) = self._reader.load([stored], begin, end, self._reading)
        refuse_invalid(slab, stored, begin)
        with placed(stored, begin, f"{encoding.name} cannot hold the tensor"):
            pack(slab, encoding, [out])

    def __enter__(self) -> CheckpointWeights:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)


def _slabs(stored: StoredTensor, begin: int, end: int) -> list[tuple[int, int]]:
    """The rows `begin … end - 1` in parts that can be read: of one matrix each, whole where rows cannot be alone."""
    matrix_rows = stored.tensor.matrix_rows
    step = max(1, SLAB_BYTES // stored.encoding.row_bytes(stored.tensor.cols))
    if stored.is_transposed or stored.encoding.whole:
        assert begin % matrix_rows == end % matrix_rows == 0
        step = matrix_rows
    parts = []
    while begin < end:
        next_matrix = (begin // matrix_rows + 1) * matrix_rows
        parts.append((begin, min(end, begin + step, next_matrix)))
        begin = parts[-1][1]
    return parts
