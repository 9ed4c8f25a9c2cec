"""Runs attention's projections and the experts by the Triton kernels, on the bytes as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...formats.codecs.encoding import BF16, F16, F32, METAL_MXFP4
from ...formats.codecs.metal_values import SCALE_SHIFT
from ...formats.codecs.mxfp4 import Mxfp4
from ...formats.codecs.slab import Scratch, encoding_of, planes
from ...formats.errors import UsageError
from ...formats.files import DataFile, open_data_file
from ...kernels.device import version_of
from ...kernels.moe import MoeStages as KernelStages
from ...kernels.moe import matmul, moe
from ...kernels.weights import Matrices, MoeWeights
from ...model.forward import GPT_OSS
from ..checkpoint import Checkpoint
from ..stored import RowSpan, StoredArray, StoredTensor
from ..weights import CheckpointWeights
from .runners import in_a_line, read_by_kernels
from .stages import ATTENTION, PROJECTIONS, MoeStages

# Arrays in files to what was read of them: gate and up may lie in one.
_Loaded = dict[tuple[StoredArray, ...], Tensor]

_DTYPES = {BF16.name: torch.bfloat16, F16.name: torch.float16, F32.name: torch.float32}


class KernelRunner:
    """The products of a layer by the kernels on `device`. Used as a context; holds one layer's attention and experts.

    What the kernels read as it is stored: MXFP4 in planes and in ggml's blocks, floats in any orientation, ggml's
    block types. Metal's scales are shifted back, its heads, Ollama's old blocks and MLX's affine ones turned, on the
    way there.

    Raises:
        UsageError: at its end, for whatever Triton or the driver failed with.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dot: str = "f32") -> None:
        self._checkpoint, self._device = checkpoint, device
        self.dot = dot
        self._attention: tuple[int, dict[str, Matrices]] = (-1, {})
        self._experts: tuple[int, MoeWeights | None] = (-1, None)
        self._files: dict[Path, DataFile] = {}

    def project(self, layer: int, name: str, inputs: Tensor) -> Tensor:
        if self._attention[0] != layer:
            self._attention = (-1, {})
            self._attention = (layer, self._all_matrices(f"layers.{layer}.attention", ATTENTION))
        bias = self._bias(f"layers.{layer}.attention.{name}")
        return matmul(inputs.to(self._device), self._attention[1][name], bias, dot=self.dot).cpu()

    def moe(self, layer: int, hidden: Tensor, logits: Tensor) -> MoeStages:
        if self._experts[0] != layer:
            self._experts = (-1, None)
            self._experts = (layer, self._load_experts(f"layers.{layer}.moe"))
        weights = self._experts[1]
        assert weights is not None
        config = self._checkpoint.config
        found = moe(
            hidden.to(self._device),
            logits.to(self._device),
            weights,
            top_k=config.num_experts_per_tok,
            limit=config.swiglu_limit,
            alpha=GPT_OSS.swiglu_alpha,
            dot=self.dot,
            stages=True,
        )
        assert isinstance(found, KernelStages)
        return MoeStages(
            experts=found.experts.cpu().long(),
            shares=found.weights.cpu(),
            gate=found.gate.cpu(),
            up=found.up.cpu(),
            activated=found.activated.cpu(),
            down=found.down.cpu(),
            out=found.out.cpu(),
        )

    def _load_experts(self, stem: str) -> MoeWeights:
        matrices = self._all_matrices(stem, PROJECTIONS)
        gate, up, down = PROJECTIONS
        return MoeWeights(
            gate=matrices[gate],
            up=matrices[up],
            down=matrices[down],
            gate_bias=self._bias(f"{stem}.{gate}"),
            up_bias=self._bias(f"{stem}.{up}"),
            down_bias=self._bias(f"{stem}.{down}"),
        )

    def _bias(self, module: str) -> Tensor:
        return self._weights.dense(f"{module}.bias").float().to(self._device, copy=True)

    def _all_matrices(self, stem: str, names: Sequence[str]) -> dict[str, Matrices]:
        loaded: _Loaded = {}
        return {name: self._matrices(self._checkpoint.tensors[f"{stem}.{name}.weight"], loaded) for name in names}

    def _matrices(self, stored: StoredTensor, loaded: _Loaded) -> Matrices:
        """A projection, of all experts if it is theirs, as the kernels take it. `loaded` is what others read before."""
        encoding = read_by_kernels(stored.encoding)
        if encoding is not stored.encoding and stored.encoding is not METAL_MXFP4:
            return self._turned(stored)
        dtype = _DTYPES.get(encoding.name, torch.uint8)
        parts, strides = [], []
        for span, (name, block_bytes) in zip(stored.spans, encoding.parts, strict=True):
            if span.arrays not in loaded:
                data = self._bytes(span)
                if stored.encoding is METAL_MXFP4 and name == "scales":
                    data = data - SCALE_SHIFT
                loaded[span.arrays] = torch.from_numpy(data).view(dtype).to(self._device)
            parts.append(loaded[span.arrays])
            strides.append(_strides(span, stored.tensor.cols, block_bytes, dtype.itemsize))
        experts, rows, columns, offsets = zip(*strides, strict=True)
        return Matrices(encoding.name, tuple(parts), _shape(stored), experts, rows, columns, offsets)

    def _bytes(self, span: RowSpan) -> NDArray[np.uint8]:
        """The whole array, or the arrays of all experts one after another: uint8."""
        data = np.empty(sum(array.n_bytes for array in span.arrays), np.uint8)
        begin = 0
        for array in span.arrays:
            self._file(array.file).read_into(data[begin : begin + array.n_bytes].data, array.offset)
            begin += array.n_bytes
        return data

    def _turned(self, stored: StoredTensor) -> Matrices:
        """A projection in its canonical encoding, for what the kernels do not read as it is stored."""
        n_experts, n_rows, cols = _shape(stored)
        found: list[list[NDArray[Any]]] = []
        for expert in range(n_experts):
            (slab,) = self._reader.load([stored], expert * n_rows, (expert + 1) * n_rows, self._scratch)
            found.append([plane.reshape(-1).copy() for plane in planes(slab)])
        encoding = encoding_of(slab)
        dtype = torch.uint8 if isinstance(slab, Mxfp4) else _DTYPES[encoding.name]
        parts = [
            torch.from_numpy(np.concatenate(part)).view(dtype).to(self._device) for part in zip(*found, strict=True)
        ]
        per_block = [n_bytes // dtype.itemsize for _, n_bytes in encoding.parts]
        rows = [cols // encoding.block_elements * n for n in per_block]
        return Matrices(
            encoding.name,
            tuple(parts),
            (n_experts, n_rows, cols),
            tuple(n_rows * row for row in rows),
            tuple(rows),
            tuple(per_block),
            (0,) * len(parts),
        )

    def _file(self, path: Path) -> DataFile:
        if path not in self._files:
            self._files[path] = self._stack.enter_context(open_data_file(path))
        return self._files[path]

    def __enter__(self) -> KernelRunner:
        self._stack, self._files, self._scratch = ExitStack(), {}, Scratch()
        self._weights = self._stack.enter_context(CheckpointWeights(self._checkpoint))
        self._reader = self._stack.enter_context(self._checkpoint.make_reader())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None and _is_of_device(error):
            raise UsageError(
                f"the kernels do not run on this device with {_versions()}",
                found=in_a_line(error),
                remedy="Use --device cpu; `gptoss-convert doctor` says with which versions the kernels were tested.",
            ) from error


def _is_of_device(error: BaseException) -> bool:
    """Whether Triton, its interpreter or the driver failed, and not the checkpoint or the user."""
    if type(error).__module__.partition(".")[0] == "triton":
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ("Triton Error", "CUDA", "HIP"))


def _versions() -> str:
    return ", ".join(f"{name} {version_of(name)}" for name in ("triton", "torch", "numpy"))


def _shape(stored: StoredTensor) -> tuple[int, int, int]:
    """Matrices, rows and columns."""
    return stored.tensor.rows // stored.tensor.matrix_rows, stored.tensor.matrix_rows, stored.tensor.cols


def _strides(span: RowSpan, cols: int, block_bytes: int, item_bytes: int) -> tuple[int, int, int, int]:
    """From expert to expert, row to row and block to block, and where the first row begins, in elements of the part."""
    row, pitch = span.row_bytes // item_bytes, span.pitch
    if span.transposed:
        return cols * pitch, span.step, pitch, span.first
    expert = span.array.n_bytes // item_bytes if len(span.arrays) > 1 else pitch * row
    return expert, span.step * row, block_bytes // item_bytes, span.first * row
