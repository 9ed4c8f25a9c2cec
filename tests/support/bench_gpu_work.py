"""What `make bench-gpu` multiplies, how it is timed, and what the chip itself can do.

Calls are put into one CUDA graph, so that Python's time to launch a kernel is not in a figure, and follow each other
with other tokens and other experts, so that weights come from memory and not from a cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stored_matrices import random_matrices

from gptoss_convert.kernels.decode import decode
from gptoss_convert.kernels.weights import ENCODINGS, Matrices, MoeWeights, matrices, split_planes

TOP_K, LIMIT = 4, 7.0
REPLAYS = 20


@dataclass(frozen=True)
class Shape:
    """The experts of one layer."""

    name: str
    experts: int
    hidden: int
    inner: int

    @property
    def elements(self) -> int:
        """Weights of one expert."""
        return 3 * self.hidden * self.inner


SHAPES = {"20b": Shape("20b", 32, 2880, 2880), "120b": Shape("120b", 128, 2880, 2880), "dry": Shape("dry", 5, 64, 32)}


@dataclass(frozen=True)
class Batch:
    """Tokens and where they go; float32 logits [T, E], x bfloat16 [T, H]."""

    x: torch.Tensor
    logits: torch.Tensor

    @property
    def n_experts(self) -> int:
        """How many experts are chosen by a token or more."""
        return len(torch.unique(self.logits.topk(TOP_K).indices))


def batches(shape: Shape, n_tokens: int, number: int, device: str) -> list[Batch]:
    generator = torch.Generator(device).manual_seed(n_tokens)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device)

    return [Batch(normal(n_tokens, shape.hidden).bfloat16(), normal(n_tokens, shape.experts)) for _ in range(number)]


def random_stored(encoding: str, n_experts: int, rows: int, cols: int, device: str) -> Matrices:
    """Experts in `encoding`: a few that are random, over and over, in memory of their own."""
    one, _ = random_matrices(encoding, (2, rows, cols), np.random.default_rng(rows), device)
    parts = [part.repeat(-(-n_experts // 2), *[1] * (part.ndim - 1))[:n_experts].contiguous() for part in one.parts]
    return matrices(encoding, *parts)


def make_weights(encoding: str, shape: Shape, device: str) -> MoeWeights:
    """As the layouts store them: gate and up in turn for Hugging Face's encodings, apart for ggml's.

    `encoding` is a key of ENCODINGS, perhaps with " in planes".
    """
    planes = encoding.endswith(" in planes")
    encoding = encoding.removesuffix(" in planes")
    experts, hidden, inner = shape.experts, shape.hidden, shape.inner
    if encoding in ("MXFP4", "BF16"):
        both = random_stored(encoding, experts, 2 * inner, hidden, device)
        gate, up = both.rows(0, 2), both.rows(1, 2)
    else:
        gate, up = (random_stored(encoding, experts, inner, hidden, device) for _ in range(2))
    stored = [gate, up, random_stored(encoding, experts, hidden, inner, device)]
    stored = [split_planes(one) for one in stored] if planes else stored
    biases = [torch.randn(experts, rows, device=device) for rows in (inner, inner, hidden)]
    return MoeWeights(*stored, *biases)


def packed_bytes(weights: MoeWeights) -> float:
    """Bytes of one expert as it is stored."""
    elements, parts = ENCODINGS[weights.gate.encoding]
    per_weight = sum(dtype.itemsize * count for dtype, count in parts) / elements
    return per_weight * 3 * weights.gate.shape[1] * weights.gate.shape[2]


def reference(batch: Batch, weights: MoeWeights) -> torch.Tensor:
    """The block's output by torch in float32, from experts that the decode kernel decoded."""
    chosen, experts = batch.logits.topk(TOP_K)
    shares = chosen.softmax(-1)
    out = torch.zeros(len(batch.x), weights.down.shape[1], device=batch.x.device)
    for expert in torch.unique(experts).tolist():
        tokens, slots = (experts == expert).nonzero(as_tuple=True)
        gate, up, down = (decode(one.expert(expert))[0] for one in (weights.gate, weights.up, weights.down))
        x = batch.x[tokens].float()
        gated = (x @ gate.T + weights.gate_bias[expert]).clamp(max=LIMIT)
        raised = (x @ up.T + weights.up_bias[expert]).clamp(-LIMIT, LIMIT) + 1
        product = (gated * torch.sigmoid(1.702 * gated) * raised) @ down.T + weights.down_bias[expert]
        out.index_add_(0, tokens, product * shares[tokens, slots, None])
    return out


def seconds_of(calls: Sequence[Callable[[], Any]], device: str, *, in_graph: bool = True) -> float:
    """The time of all calls, one after another: the median of several rounds.

    Args:
        in_graph: put them into a CUDA graph.
    """

    def run() -> None:
        for call in calls:
            call()

    if device != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    run()
    torch.cuda.synchronize()
    if in_graph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        run = graph.replay
    run()
    return statistics.median(_seconds_on_gpu(run) for _ in range(REPLAYS))


def _seconds_on_gpu(run: Callable[[], None]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def copy_rate(device: str) -> float:
    """Bytes per second that a copy in memory reads and writes together."""
    n_bytes = 1 << 32 if device == "cuda" else 1 << 22
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / seconds_of([lambda: target.copy_(source)], device)


def matmul_rate(device: str) -> float:
    """Operations per second of torch's bf16 product of random matrices; multiplying and adding are two."""
    n = 8192 if device == "cuda" else 64
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    return 2 * n**3 / seconds_of([lambda: a @ b], device)
