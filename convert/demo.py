"""Synthetic checkpoints in the official layout: true shapes, true file names, random weights of sane magnitude.

The weights are made while they are written, each leaf of rows from a random stream of its own, so that any size is made
in bounded memory and the same seed gives the same bytes whatever the slab size or the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from zlib import crc32

import numpy as np
from numpy.random import SFC64, Generator
from numpy.typing import NDArray

from ..formats.codecs import floats
from ..formats.codecs.encoding import BF16, F32, MXFP4
from ..formats.codecs.mxfp4 import Mxfp4
from ..formats.codecs.slab import Dense, Scratch, Slab
from ..formats.errors import UsageError
from ..model.config import GptOssConfig, parse_config
from ..model.config_checks import layer_types
from ..model.demo_tokenizer import demo_tokenizer_files
from ..model.harmony import OFFICIAL_N_TEXT_TOKENS
from ..model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from ..model.inventory import inventory
from ..model.layouts import original
from ..model.layouts.official_shards import SHARD_BYTES
from .checkpoint import Checkpoint
from .plan import Plan, leaves, plan
from .stored import StoredTensor
from .targets.hf import HfTarget
from .targets.original import OriginalTarget

# Root mean square of the values of a uniformly random e2m1 code.
_CODE_RMS = math.sqrt(sum(value * value for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6)) / 8)


@dataclass(frozen=True)
class Preset:
    """A model to make: its config, how many text tokens its tokenizer has, and bytes per shard."""

    config: Mapping[str, object]
    n_text: int
    shard_bytes: int


# Small, yet nothing in it is equal by accident: hidden is not intermediate, blocks per row are 6 and 5, the vocabulary
# has rows without a token, the window is shorter than a prompt.
_TINY = GPT_OSS_20B | {
    "eos_token_id": 388,
    "hidden_size": 192,
    "intermediate_size": 160,
    "layer_types": layer_types(4),
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "pad_token_id": 385,
    "sliding_window": 32,
    "vocab_size": 416,
}

PRESETS: dict[str, Preset] = {
    "tiny": Preset(_TINY, n_text=384, shard_bytes=1_000_000),
    "20b": Preset(GPT_OSS_20B, OFFICIAL_N_TEXT_TOKENS, SHARD_BYTES),
    "120b": Preset(GPT_OSS_120B, OFFICIAL_N_TEXT_TOKENS, SHARD_BYTES),
}


def plan_demo(
    out: Path,
    preset: str = "tiny",
    layers: int | None = None,
    seed: int = 0,
    *,
    layout: str = "hf",
    sparse: bool = False,
) -> Plan:
    """The plan of a synthetic checkpoint in the new directory `out`.

    Args:
        out: the directory.
        preset: "tiny", "20b" or "120b".
        layers: how many, if not the preset's.
        seed: of the random weights.
        layout: "hf", or "original", which has no tokenizer.
        sparse: every weight is zero, and takes no room where files can have holes.

    Raises:
        UsageError: the preset is unknown, or there is no layer.
    """
    if preset not in PRESETS:
        raise UsageError(
            "the preset is unknown", expected=", ".join(PRESETS), found=repr(preset), remedy="Choose one of these."
        )
    chosen = PRESETS[preset]
    raw = dict(chosen.config)
    if layers is not None:
        if layers < 1:
            raise UsageError(
                "a model needs a layer",
                expected="--layers 1 or more",
                found=layers,
                remedy="Use --layers 1 or more, or leave it away.",
            )
        raw |= {"num_hidden_layers": layers, "layer_types": layer_types(layers)}
    config = parse_config(raw)
    source = replace(synthetic_checkpoint(config, seed), is_blank=sparse)
    if layout == original.NAME:
        return plan(source, OriginalTarget(out))
    texts = demo_tokenizer_files(chosen.n_text, config.vocab_size)
    return plan(source, HfTarget(out, texts, chosen.shard_bytes))


def synthetic_checkpoint(config: GptOssConfig, seed: int) -> Checkpoint:
    """A checkpoint that is nowhere stored: its reader makes each slab when asked."""
    tensors = {
        name: StoredTensor(tensor, MXFP4 if tensor.role == "experts" else BF16, ())
        for name, tensor in inventory(config).items()
    }

    def make_reader() -> SyntheticReader:
        return SyntheticReader(seed)

    return Checkpoint(Path("synthetic"), "synthetic", config, tensors, (), (), make_reader=make_reader)


class SyntheticReader:
    """Makes slabs from random numbers."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def load(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> list[Slab]:
        return [self._slab(stored, begin, end, scratch, f"made{number}") for number, stored in enumerate(tensors)]

    def _slab(self, stored: StoredTensor, begin: int, end: int, scratch: Scratch, name: str) -> Slab:
        tensor = stored.tensor
        cut = leaves(stored)
        shape = (end - begin, tensor.cols)
        if stored.encoding is MXFP4:
            groups = tensor.cols // 32
            exponent = _EXPERT_EXPONENTS[tensor.name.split(".")[-2]]
            blocks = scratch.array(f"{name}.blocks", (shape[0], groups, 16), np.dtype(np.uint8))
            scales = scratch.array(f"{name}.scales", (shape[0], groups), np.dtype(np.uint8))
            for number, first, last in cut.between(begin, end):
                rows = slice(first - begin, last - begin)
                _fill_packed(self._stream(tensor.name, number), blocks[rows], scales[rows], exponent)
            return Mxfp4(blocks, scales)
        mean, std = _MAGNITUDES[tensor.role](tensor.cols)
        values = scratch.array(f"{name}.values", shape, np.dtype(np.uint16))
        for number, first, last in cut.between(begin, end):
            rows = slice(first - begin, last - begin)
            numbers = self._stream(tensor.name, number).standard_normal(values[rows].shape, np.float32)
            numbers *= np.float32(std)
            numbers += np.float32(mean)
            floats.convert(numbers, F32.name, BF16.name, values[rows])
        return Dense(BF16, values)

    def _stream(self, name: str, leaf: int) -> Generator:
        return Generator(SFC64([self._seed, crc32(name.encode()), leaf]))

    def __enter__(self) -> SyntheticReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _fill_packed(stream: Generator, blocks: NDArray[np.uint8], scales: NDArray[np.uint8], exponent: int) -> None:
    """Uniformly random codes, and scales that make outputs about 2**exponent times as large as inputs."""
    blocks[:] = np.frombuffer(stream.bytes(blocks.size), np.uint8).reshape(blocks.shape)
    fan_in = scales.shape[1] * 32
    middle = 127 + exponent + round(math.log2(1 / (_CODE_RMS * math.sqrt(fan_in))))
    scales[:] = stream.integers(middle - 1, middle + 2, scales.shape, np.uint8)


def _fan_in(gain: float) -> Callable[[int], tuple[float, float]]:
    """Mean and standard deviation that give outputs `gain` times as large as inputs of `cols` elements."""
    return lambda cols: (0.0, gain / math.sqrt(cols))


def _fixed(mean: float, std: float) -> Callable[[int], tuple[float, float]]:
    return lambda _cols: (mean, std)


# Projection of an expert -> how much larger its outputs are than its inputs, as a power of two. gate and up reach the
# clamp at 7 now and then; down brings the products back to what the residual stream bears.
_EXPERT_EXPONENTS = {"gate": 1, "up": 1, "down": -5}

# role -> mean and standard deviation, given the columns. The residual stream starts at 1 and grows by about a tenth a
# layer. Sinks take a good share of the attention. Router logits lie far apart, so that rounding seldom changes which
# experts are chosen, and little when it does. Logits have a standard deviation of 4, so that the most likely token is
# not chosen by rounding.
_MAGNITUDES: dict[str, Callable[[int], tuple[float, float]]] = {
    "embedding": _fixed(0.0, 1.0),
    "unembedding": _fan_in(4.0),
    "norm": _fixed(1.0, 0.1),
    "attention": _fan_in(1.0),
    "attention bias": _fixed(0.0, 0.1),
    "sinks": _fixed(4.0, 1.0),
    "router": _fan_in(4.0),
    "router bias": _fixed(0.0, 1.0),
    "expert bias": _fixed(0.0, 0.1),
}
