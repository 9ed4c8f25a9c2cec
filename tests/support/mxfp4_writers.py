"""Everyone here who turns BF16 into MXFP4: our scale rules, the peers that can be installed, and the best scale.

A peer's package is imported when it first encodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mxfp4_reference import STEPS, as_numbers, exponents, nearest_codes
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.codecs.mxfp4_encode import encode, encode_like, survey
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule

Array = NDArray[Any]

SIGNED_STEPS = np.concatenate([STEPS, -STEPS])


class Blocks(NamedTuple):
    """Encoded blocks: `codes` uint8 [n, 32], `scales` uint8 [n]."""

    codes: Array
    scales: Array

    def values(self) -> Array:
        """float64 [n, 32]."""
        return SIGNED_STEPS[self.codes] * np.ldexp(1.0, self.scales.astype(int) - 127)[:, None]

    def same_bytes(self, other: Blocks) -> Array:
        """Which blocks are equal, bool [n]."""
        return (self.codes == other.codes).all(axis=1) & (self.scales == other.scales)


@dataclass(frozen=True)
class Writer:
    """Who encodes. `encode` takes BF16 patterns, uint16 [n, 32]; `package` is what it needs, "" if that is ours."""

    name: str
    encode: Callable[[Array], Blocks]
    package: str = ""


def interleaved(blocks: Array, scales: Array) -> Blocks:
    """Of blocks uint8 [n, 16] whose byte j holds elements 2j and 2j + 1."""
    return Blocks(np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(-1, 32), scales.reshape(-1))


def split_half(data: Array) -> Blocks:
    """Of ggml's blocks, uint8 [n, 17], scale first, whose byte j holds elements j and j + 16."""
    return Blocks(np.hstack([data[:, 1:] & 15, data[:, 1:] >> 4]), data[:, 0])


def ours(patterns: Array, rule: ScaleRule, like: Blocks | None = None) -> Blocks:
    """By a rule of the package; `exact` decides by a survey of these blocks, as the command line does by one slab."""
    rows = patterns.reshape(1, -1)
    out = _empty(len(patterns))
    prefer = survey(rows, "BF16").prefer
    if like is None:
        encode(rows, "BF16", rule, out, prefer=prefer)
    else:
        original = _empty(len(patterns))
        original.blocks[0] = like.codes[:, 0::2] | like.codes[:, 1::2] << 4
        original.scales[0] = like.scales
        encode_like(rows, "BF16", original, rule, out, prefer=prefer)
    return interleaved(out.blocks[0], out.scales[0])


def _empty(n_blocks: int) -> Mxfp4:
    return Mxfp4(np.empty((1, n_blocks, 16), np.uint8), np.empty((1, n_blocks), np.uint8))


def best(patterns: Array) -> Blocks:
    """With the scale of the floor rule or one beside it, whichever has the smallest squared error."""
    numbers = as_numbers(patterns, "BF16")
    floor = exponents(np.abs(numbers).max(axis=1), "floor")
    trials = np.maximum(floor + np.arange(-1, 2)[:, None], -127)
    errors = [np.square(numbers - _rounded(numbers, exponent)).sum(axis=1) for exponent in trials]
    exponent = np.take_along_axis(trials, np.argmin(errors, axis=0)[None], axis=0)[0]
    return Blocks(nearest_codes(numbers, exponent), (exponent + 127).astype(np.uint8))


def _rounded(numbers: Array, exponent: Array) -> Array:
    """To one of two equally near codes; which is the same to the error."""
    codes = np.digitize(np.ldexp(np.abs(numbers), -exponent[:, None]), (STEPS[:-1] + STEPS[1:]) / 2)
    return np.copysign(np.ldexp(STEPS[codes], exponent[:, None]), numbers)


def torchao(patterns: Array, mode: str) -> Blocks:
    import torch
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    values = torch.from_numpy(patterns.view(np.int16)).view(torch.bfloat16)
    scales, codes = to_mx(values, torch.float4_e2m1fn_x2, 32, ScaleCalculationMode[mode])
    return interleaved(codes.view(torch.uint8).numpy().reshape(-1, 16), scales.view(torch.uint8).numpy())


def gguf_py(patterns: Array) -> Blocks:
    import gguf

    with np.errstate(over="ignore"):  # what becomes of the smallest numbers
        return split_half(gguf.quants.quantize(_float32(patterns), gguf.GGMLQuantizationType.MXFP4))


def llama_cpp(patterns: Array) -> Blocks:
    import ggml

    return split_half(ggml.quantize("MXFP4", _float32(patterns)))


def mlx_cpu(patterns: Array) -> Blocks:
    import mlx.core as mx

    with mx.stream(mx.cpu):
        words, scales = mx.quantize(mx.array(_float32(patterns)), group_size=32, bits=4, mode="mxfp4")
        return interleaved(np.array(words).view(np.uint8), np.array(scales))


def _float32(patterns: Array) -> Array:
    return as_numbers(patterns, "BF16").astype(np.float32)


OUR_RULES = [
    Writer("`floor`", lambda patterns: ours(patterns, ScaleRule.FLOOR)),
    Writer("`even`", lambda patterns: ours(patterns, ScaleRule.EVEN)),
    Writer("`ceil`", lambda patterns: ours(patterns, ScaleRule.CEIL)),
]
EXACT = Writer("`exact`", lambda patterns: ours(patterns, ScaleRule.EXACT))
BEST = Writer("best scale", best)
PEERS = [
    Writer("torchao FLOOR", lambda patterns: torchao(patterns, "FLOOR"), "torchao"),
    Writer("torchao EVEN", lambda patterns: torchao(patterns, "EVEN"), "torchao"),
    Writer("torchao RCEIL", lambda patterns: torchao(patterns, "RCEIL"), "torchao"),
    Writer("torchao CEIL", lambda patterns: torchao(patterns, "CEIL"), "torchao"),
    Writer("gguf-py", gguf_py, "gguf"),
    Writer("llama.cpp", llama_cpp, "xllamacpp"),
    Writer("MLX, CPU", mlx_cpu, "mlx"),
]
