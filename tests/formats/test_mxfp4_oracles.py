"""The encoder against torchao's and gguf-py's, which share no code with it."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
import torch
from mxfp4_reference import KINDS, as_encoding, decoded, hard_blocks
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.codecs.mxfp4_encode import encode
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule

Array = NDArray[Any]

MODES = {ScaleRule.FLOOR: "FLOOR", ScaleRule.CEIL: "RCEIL", ScaleRule.EVEN: "EVEN"}
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}


def ours(numbers: Array, encoding: str, rule: ScaleRule) -> tuple[Array, Array]:
    """blocks [n, 16] and scales [n] of `numbers` [n, 32]."""
    out = Mxfp4(np.zeros((1, len(numbers), 16), np.uint8), np.zeros((1, len(numbers)), np.uint8))
    encode(as_encoding(numbers, encoding).reshape(1, -1), encoding, rule, out)
    return out.blocks[0], out.scales[0]


def torchao(numbers: Array, encoding: str, rule: ScaleRule) -> tuple[Array, Array]:
    pytest.importorskip("torchao", reason="the same blocks are compared with float64 arithmetic in test_mxfp4_encode")
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    values = torch.from_numpy(numbers).to(DTYPES[encoding])
    scales, codes = to_mx(values, torch.float4_e2m1fn_x2, 32, ScaleCalculationMode[MODES[rule]])
    return codes.view(torch.uint8).numpy().reshape(-1, 16), scales.view(torch.uint8).numpy().reshape(-1)


def torchao_errs(numbers: Array, scales: Array, encoding: str, rule: ScaleRule) -> tuple[Array, Array]:
    """Where torchao 0.18 does not do what it says: with the codes, and with the scale.

    At scale 0 it divides by 2^-126, or by 1 in RCEIL, but decodes with 2^-127. RCEIL takes the ceiling of a float32
    logarithm, which hides that an F32 is just above 6 * 2^e.
    """
    codes = (scales == 0) & numbers.any(axis=1)
    over = np.abs(numbers).max(axis=1) / np.ldexp(6.0, scales.astype(int) - 128)
    hidden = (over > 1) & (over < 1 + 2.0**-18) & (encoding == "F32") & (rule is ScaleRule.CEIL)
    return codes | hidden, hidden


@pytest.mark.parametrize("rule", MODES)
@pytest.mark.parametrize("encoding", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_rule_is_byte_identical_to_torchao_where_that_is_right(kind: str, encoding: str, rule: ScaleRule) -> None:
    numbers = hard_blocks(kind, encoding, 2000)
    blocks, scales = ours(numbers, encoding, rule)
    their_blocks, their_scales = torchao(numbers, encoding, rule)
    codes_err, scale_errs = torchao_errs(numbers, scales, encoding, rule)
    assert np.count_nonzero(~codes_err) > 500
    assert np.array_equal(scales[~scale_errs], their_scales[~scale_errs])
    assert np.array_equal(blocks[~codes_err], their_blocks[~codes_err])


@pytest.mark.parametrize("rule", MODES)
def test_weights_are_byte_identical_to_torchao(rule: ScaleRule) -> None:
    numbers = np.random.default_rng(0).standard_normal((20_000, 32)) * 0.02
    numbers = torch.from_numpy(numbers).to(torch.bfloat16).double().numpy()
    for found, theirs in zip(ours(numbers, "BF16", rule), torchao(numbers, "BF16", rule), strict=True):
        assert np.array_equal(found, theirs)


@pytest.mark.parametrize("kind", ["random", "boundary"])
def test_floor_is_value_identical_to_gguf_py_but_for_ties(kind: str) -> None:
    """gguf-py drops the sign of zero, rounds a tie to the lower code, and takes log2 in float32."""
    numbers = hard_blocks(kind, "BF16", 2000)
    amax = np.abs(numbers).max(axis=1)
    numbers = numbers[(amax > 2.0**-120) & (amax < 2.0**120)]
    blocks, scales = ours(numbers, "BF16", ScaleRule.FLOOR)
    stored = gguf.quants.quantize(numbers.astype(np.float32), gguf.GGMLQuantizationType.MXFP4)
    assert np.array_equal(scales, stored[:, 0])
    exponent = scales.astype(int) - 127
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(-1, 32)
    values = decoded(codes, exponent)
    theirs = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType.MXFP4).astype(np.float64)
    tie = np.abs(numbers - values) == np.abs(numbers - theirs)
    assert np.array_equal(values[~tie], theirs[~tie])
    assert (np.abs(values) >= np.abs(theirs))[tie].all()
    assert np.count_nonzero(values != theirs) < 0.02 * values.size
