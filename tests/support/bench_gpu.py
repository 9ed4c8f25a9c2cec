"""`make bench-gpu`: the experts of one layer in true shape, on the GPU at hand, beside what the chip itself can do.

Decode (1, 4, 16 tokens) is told as a fraction of the measured copy bandwidth, counted in packed bytes of the experts
that tokens go to; prefill (512, 4096 tokens) as a fraction of the measured rate of a bf16 product. Every result is
compared with float32 before it is timed. Prints Markdown for docs/benchmarks.md. `--dry` runs all of it, tiny, in
Triton's interpreter: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import interpreter
import torch
from bench_gpu_peers import TorchExperts, TritonKernels
from bench_gpu_work import (
    LIMIT,
    SHAPES,
    TOP_K,
    Batch,
    Shape,
    batches,
    copy_rate,
    make_weights,
    matmul_rate,
    packed_bytes,
    reference,
    seconds_of,
)
from kernel_tolerances import BF16, MXFP8
from moe_reference import relative

from gptoss_convert.kernels.by_ladder import moe_by_ladder, path_of
from gptoss_convert.kernels.device import Device, devices, parse_arch, path_for, version_of
from gptoss_convert.kernels.weights import MoeWeights

ENCODINGS = ("MXFP4", "GGML_MXFP4", "GGML_MXFP4 in planes", "Q8_0", "Q8_0 in planes", "BF16")
PEERS: dict[str, Callable[[Shape, str], Any]] = {"torch, BF16": TorchExperts, "triton_kernels": TritonKernels}
DECODE, PREFILL = (1, 4, 16), (512, 4096)
ROUNDS = 16  # batches of a decode; of a prefill one is enough
AIMS = {"decode": "≥ 60 % of copy at 16 tokens", "prefill": "≥ 45 % of bf16 at 4096 tokens"}


class Bench:
    """One shape on one device, with the rates that figures are told in."""

    def __init__(self, shape: Shape, device: Device, copy: float, matmul: float) -> None:
        self.shape, self.device, self.copy, self.matmul = shape, device, copy, matmul
        self.place = "cpu" if device.backend == "interpret" else "cuda"
        self.is_dry = self.place == "cpu"
        self.tokens = (DECODE[0], PREFILL[0]) if self.is_dry else DECODE + PREFILL

    def batches(self, n_tokens: int) -> list[Batch]:
        if self.is_dry:
            return batches(self.shape, 1 if n_tokens in DECODE else 5, 1, self.place)
        return batches(self.shape, n_tokens, 1 if n_tokens in PREFILL else ROUNDS, self.place)

    def cell(self, n_tokens: int, some: list[Batch], seconds: float, expert_bytes: float) -> str:
        """Microseconds of a batch, and the fraction of what the chip can do."""
        each = seconds / len(some)
        if n_tokens in DECODE:
            n_bytes = sum(batch.n_experts for batch in some) * expert_bytes
            return f"{1e6 * each:.0f} µs, {n_bytes / seconds / self.copy:.0%}"
        operations = 2 * len(some[0].x) * TOP_K * self.shape.elements
        return f"{1e3 * each:.2f} ms, {operations / each / self.matmul:.0%}"

    def ours(self, encoding: str, *, native: bool = False) -> Iterator[str]:
        """The path, then a cell for each number of tokens."""
        weights = make_weights(encoding, self.shape, self.place)
        path = path_of(weights, self.device, PREFILL[0], TOP_K, native=native)
        yield f"{path.name}, {path.dot}" if native else path.name
        for n_tokens in self.tokens:
            path = path_of(weights, self.device, n_tokens, TOP_K, native=native)
            some = self.batches(n_tokens)
            found = self.multiply(some[0], weights, native=native).cpu().numpy()
            wrong = relative(found, reference(some[0], weights).cpu().numpy())
            if not wrong <= (MXFP8 if path.native else BF16):
                yield f"**wrong by {wrong:.1e}**"
                continue
            calls = [lambda batch=batch: self.multiply(batch, weights, native=native) for batch in some]
            # What asks the device which experts have tokens cannot be put into a graph.
            in_graph = bool(path.kernel_dot)
            seconds = seconds_of(calls, self.place, in_graph=in_graph)
            yield self.cell(n_tokens, some, seconds, packed_bytes(weights))

    def multiply(self, batch: Batch, weights: MoeWeights, *, native: bool) -> torch.Tensor:
        return moe_by_ladder(batch.x, batch.logits, weights, self.device, top_k=TOP_K, limit=LIMIT, native=native)[0]

    def peer(self, name: str) -> list[str]:
        """What it is, then a cell for each number of tokens, or why there is none."""
        try:
            return ["beside", *self._peer_cells(PEERS[name](self.shape, self.place))]
        except Exception as error:  # Another's package may fail in any way.
            return [f"not measured: {error}", *[""] * len(self.tokens)]

    def _peer_cells(self, peer: Any) -> Iterator[str]:
        for n_tokens in self.tokens:
            some = self.batches(n_tokens)
            seconds = seconds_of([peer.call(batch) for batch in some], self.place)
            yield self.cell(n_tokens, some, seconds, peer.bytes_per_weight * self.shape.elements)


def here(dry: bool) -> Device:
    """The GPU; the interpreter for a dry run."""
    if dry:
        return parse_arch("interpret")
    found = [device for device in devices() if device.backend in ("cuda", "hip")]
    if not found:
        sys.exit("There is no GPU here that torch can use. `--dry` shows what would be run.")
    return found[0]


def print_shape(bench: Bench) -> None:
    columns = [f"{n} token{'s' if n > 1 else ''}" for n in bench.tokens]
    print(f"\n{bench.shape.name}: {bench.shape.experts} experts of {bench.shape.hidden} × {bench.shape.inner}\n")
    print(f"| experts in | path | {' | '.join(columns)} |")
    print("|---|---|" + "---:|" * len(columns))
    for encoding in ENCODINGS:
        print(f"| {encoding} | {' | '.join(bench.ours(encoding))} |", flush=True)
    if path_for("MXFP4", bench.device, tokens=PREFILL[0], native=True).native:
        print(f"| MXFP4, natively | {' | '.join(bench.ours('MXFP4', native=True))} |", flush=True)
    for name in PEERS:
        print(f"| {name} | {' | '.join(bench.peer(name))} |", flush=True)
        if not bench.is_dry:
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("20b", "120b"), help="one shape; both if not given")
    parser.add_argument("--dry", action="store_true", help="run everything, tiny, in Triton's interpreter")
    options = parser.parse_args()
    if options.dry and os.environ.get("TRITON_INTERPRET") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "TRITON_INTERPRET": "1"})
    if options.dry:
        torch.set_num_threads(1)
        interpreter.quicken()
        interpreter.lend_dot_scaled()
    device = here(options.dry)
    place = "cpu" if options.dry else "cuda"
    copy, matmul = copy_rate(place), matmul_rate(place)
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "triton"))
    print(f"{device.name} ({device.arch or device.backend}), {versions}, {datetime.date.today()}")
    print(f"copy {copy / 1e12:.2f} TB/s read and written, bf16 product {matmul / 1e12:.0f} TFLOP/s")
    print("; ".join(f"{what} to reach: {aim}" for what, aim in AIMS.items()))
    if options.dry:
        print("A dry run in Triton's interpreter: no figure here means anything.")
    for name in ("dry",) if options.dry else (options.shape,) if options.shape else ("20b", "120b"):
        print_shape(Bench(SHAPES[name], device, copy, matmul))


if __name__ == "__main__":
    main()
