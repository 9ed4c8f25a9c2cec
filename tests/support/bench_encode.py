"""The MXFP4 encoder alone beside the quantizers of gguf-py, torchao and llama.cpp, on one tensor in memory.

gguf-py and llama.cpp take float32 and get it ready made.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import ggml
import gguf
import numpy as np
import torch
from bench_jobs import spread
from numpy.typing import NDArray
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_mx

from gptoss_convert.formats.codecs.mxfp4 import Mxfp4, decode_bf16
from gptoss_convert.formats.codecs.mxfp4_encode import encode, survey
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule

SHAPE = (2880 * 8, 2880)


@dataclass
class Encoder:
    """Encodes the tensor with `threads` threads; is compared with ours of as many."""

    name: str
    threads: int
    run: Callable[[], object]
    aim: str = ""
    seconds: list[float] = field(default_factory=list)


class Tensor:
    """Gaussian weights, or what MXFP4 holds of them, in every form that someone takes."""

    def __init__(self, exact: bool) -> None:
        values = np.random.default_rng(0).standard_normal(SHAPE, np.float32) * np.float32(0.02)
        self.torch = torch.from_numpy(values).to(torch.bfloat16)
        self.patterns: NDArray[np.uint16] = self.torch.view(torch.uint16).numpy()
        self.packed = Mxfp4(
            np.empty((SHAPE[0], SHAPE[1] // 32, 16), np.uint8), np.empty((SHAPE[0], SHAPE[1] // 32), np.uint8)
        )
        if exact:
            encode(self.patterns, "BF16", ScaleRule.EVEN, self.packed)
            decode_bf16(self.packed, self.patterns)
        self.float32: NDArray[Any] = self.torch.float().numpy()

    def ours(self, threads: int) -> None:
        """The rule exact, with the survey of the first rows that the command makes."""
        prefer = survey(self.patterns[:256], "BF16").prefer
        bounds = np.linspace(0, SHAPE[0], threads + 1).astype(int)

        def part(number: int) -> None:
            rows = slice(bounds[number], bounds[number + 1])
            out = Mxfp4(self.packed.blocks[rows], self.packed.scales[rows])
            encode(self.patterns[rows], "BF16", ScaleRule.EXACT, out, prefer=prefer)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))

    def torchao(self, threads: int) -> None:
        torch.set_num_threads(threads)
        to_mx(self.torch, torch.float4_e2m1fn_x2, 32, ScaleCalculationMode.EVEN)

    def gguf_py(self) -> None:
        gguf.quants.quantize(self.float32, gguf.GGMLQuantizationType.MXFP4)

    def llama_cpp(self) -> None:
        ggml.quantize("MXFP4", self.float32.reshape(-1, 32))

    def encoders(self) -> list[Encoder]:
        return [
            Encoder("`exact`", 1, lambda: self.ours(1)),
            Encoder("`exact`", 2, lambda: self.ours(2)),
            Encoder("torchao EVEN, eager", 1, lambda: self.torchao(1), "≥ 10"),
            Encoder("torchao EVEN, eager", 2, lambda: self.torchao(2), "≥ 10"),
            Encoder("gguf-py, from F32", 1, self.gguf_py, "≥ 10"),
            Encoder("llama.cpp, from F32", 1, self.llama_cpp),
        ]


def bench_encoders(rounds: int) -> None:
    for exact in (False, True):
        encoders = Tensor(exact).encoders()
        for number in range(rounds + 1):
            for encoder in encoders:
                started = time.monotonic()
                encoder.run()
                encoder.seconds.append(time.monotonic() - started)
            print(f"round {number} of {rounds} of the encoders", file=sys.stderr)
        _print(encoders, "MXFP4 decoded to BF16" if exact else "BF16 weights, no block exact", rounds)


def _print(encoders: list[Encoder], what: str, rounds: int) -> None:
    """The first round only warms up."""
    n_bytes = SHAPE[0] * SHAPE[1] * 2
    print(f"\nThe encoder alone, on {what}, {SHAPE[0]} × {SHAPE[1]}, {n_bytes / 1e6:.0f} MB, {rounds} rounds\n")
    print("| encoder | threads | milliseconds, median (min – max) | GB/s of BF16 | `exact` is faster by | to reach |")
    print("|---|---|---|---|---|---|")
    base = {encoder.threads: encoder.seconds for encoder in encoders[:2]}
    for encoder in encoders:
        rate = n_bytes / 1e9 / statistics.median(encoder.seconds[1:])
        factors = [theirs / mine for theirs, mine in zip(encoder.seconds, base[encoder.threads], strict=True)][1:]
        times = spread([1000 * seconds for seconds in encoder.seconds[1:]])
        print(f"| {encoder.name} | {encoder.threads} | {times} | {rate:.2f} | {spread(factors)} | {encoder.aim} |")
