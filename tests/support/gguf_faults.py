"""GGUF files of gpt-oss that llama.cpp loads without a word and that are wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptoss_convert.formats.containers.gguf_reader import GgufFile, read_gguf

EXPERTS = ("gate", "up", "down")
BLOCK_BYTES = 17  # scale first, then 32 codes


class Tensors:
    """The tensors of a GGUF file, open for damage."""

    def __init__(self, gguf: GgufFile) -> None:
        self._gguf = gguf
        self.layers = range(int(gguf.kv["gpt-oss.block_count"].value))
        self.n_experts = int(gguf.kv["gpt-oss.expert_count"].value)

    def bytes_of(self, name: str) -> NDArray[np.uint8]:
        """A writable view of one tensor's bytes."""
        tensor = self._gguf.tensors[name]
        return np.memmap(self._gguf.path, np.uint8, "r+", tensor.offset, (tensor.n_bytes,))

    def encoding(self, name: str) -> str:
        return self._gguf.tensors[name].type.name

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """A writable view of an MXFP4 tensor: uint8 [blocks, 17]."""
        return self.bytes_of(name).reshape(-1, BLOCK_BYTES)


Fault = Callable[[Tensors], object]


def with_fault(source: Path, out: Path, fault: Fault) -> Path:
    """A copy of the GGUF file `source` with the fault in it."""
    shutil.copyfile(source, out)
    fault(Tensors(read_gguf(out)))
    assert out.read_bytes() != source.read_bytes()
    return out


def zeroed(*names: str) -> Fault:
    """All elements 0, in every layer; `names` are the tensors' names within a layer."""

    def fault(tensors: Tensors) -> None:
        for layer in tensors.layers:
            for name in names:
                tensors.bytes_of(f"blk.{layer}.{name}")[:] = 0

    return fault


def gate_and_up_swapped(tensors: Tensors) -> None:
    for layer in tensors.layers:
        for part in ("weight", "bias"):
            gate = tensors.bytes_of(f"blk.{layer}.ffn_gate_exps.{part}")
            up = tensors.bytes_of(f"blk.{layer}.ffn_up_exps.{part}")
            gate[:], up[:] = up.copy(), gate.copy()


def experts_moved_by_one(tensors: Tensors) -> None:
    """Each expert has the down projection of its neighbour."""
    for layer in tensors.layers:
        down = tensors.bytes_of(f"blk.{layer}.ffn_down_exps.weight").reshape(tensors.n_experts, -1)
        down[:] = np.roll(down, 1, axis=0)


def nibbles_in_hf_order(tensors: Tensors) -> None:
    """Byte j holds elements 2j and 2j + 1, where ggml expects j and j + 16."""
    for layer in tensors.layers:
        for expert in EXPERTS:
            packed = tensors.blocks(f"blk.{layer}.ffn_{expert}_exps.weight")[:, 1:]
            codes = np.concatenate([packed & 15, packed >> 4], axis=1)
            packed[:] = codes[:, 0::2] | codes[:, 1::2] << 4


def scales_off_by_one(tensors: Tensors, by: int) -> None:
    for layer in tensors.layers:
        for expert in EXPERTS:
            tensors.blocks(f"blk.{layer}.ffn_{expert}_exps.weight")[:, 0] += np.uint8(by % 256)


def one_tensor_s_scales_off_by_one(tensors: Tensors) -> None:
    """The last layer's down projection is twice as large as it should be."""
    name = f"blk.{tensors.layers[-1]}.ffn_down_exps.weight"
    match tensors.encoding(name):
        case "MXFP4":
            tensors.blocks(name)[:, 0] += 1
        case "BF16":
            bits = tensors.bytes_of(name).view(np.uint16)
            bits[bits & 0x7FFF != 0] += 0x80  # the exponent's lowest bit
        case encoding:
            tensors.bytes_of(name).view({"F16": np.float16, "F32": np.float32}[encoding])[:] *= 2


def one_block_doubled(tensors: Tensors) -> None:
    """A scale that is one too large, as it shows in an F32 file: 32 of all weights are twice what they should be."""
    weights = tensors.bytes_of(f"blk.{tensors.layers[0]}.ffn_down_exps.weight").view(np.float32)
    weights[:32] *= 2


MAIN_FAULTS: dict[str, Fault] = {
    "experts are zeros": zeroed(*(f"ffn_{expert}_exps.weight" for expert in EXPERTS)),
    "gate and up swapped": gate_and_up_swapped,
    "scales of one tensor off by one": one_tensor_s_scales_off_by_one,
}
ANY_FAULTS = MAIN_FAULTS | {
    "experts moved by one": experts_moved_by_one,
    "sinks zeroed": zeroed("attn_sinks.weight"),
    "expert biases dropped": zeroed(*(f"ffn_{expert}_exps.bias" for expert in EXPERTS)),
    "router bias dropped": zeroed("ffn_gate_inp.bias"),
    "attention bias dropped": zeroed("attn_q.bias", "attn_k.bias", "attn_v.bias"),
}
MXFP4_FAULTS = ANY_FAULTS | {
    "nibbles in HF order": nibbles_in_hf_order,
    "scales one too large": partial(scales_off_by_one, by=1),
    "scales one too small": partial(scales_off_by_one, by=-1),
}
F32_FAULTS = ANY_FAULTS | {"one scale of one block off by one": one_block_doubled}
