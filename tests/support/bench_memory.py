"""Peak anonymous memory of every conversion, for 4 and 8 layers of 20b and one of 120b: it should be the same."""

from __future__ import annotations

from pathlib import Path

from bench_jobs import Job, settle
from bench_tables import Bench, both

LIMIT = "≤ 600 MB, the same in every column"
SHAPES = (("20b", 4), ("20b", 8), ("120b", 1))


def benches(directory: Path) -> list[Bench]:
    return [Bench(directory, preset, layers, 1) for preset, layers in SHAPES]


def print_memory(directory: Path) -> None:
    columns = []
    for bench in benches(directory):
        was_there = bench.source.exists()
        bench.prepare()
        columns.append(peaks(bench))
        settle([] if was_there else [bench.source])
    print(f"\nPeak anonymous memory, one run each; to reach: {LIMIT}\n")
    print(f"| job | {' | '.join(f'{preset}, layers: {layers}' for preset, layers in SHAPES)} |")
    print("|---|" + "---|" * len(SHAPES))
    for row in zip(*columns, strict=True):
        print(f"| {row[0].name} | {' | '.join(job.peak for job in row)} |")


def peaks(bench: Bench) -> list[Job]:
    """All conversions, run once each. The outputs that others read are made on the way."""
    original, bf16, out = bench.path("original"), bench.path("bf16"), bench.path("out")
    settle([original, bf16, out])
    from_source = [
        job
        for name in ("to-gguf", "to-mlx", "to-metal")
        for job in both(name, bench.converting(name, bench.source, out), "")
    ]
    for job in from_source:
        job.run()
        settle([out])
    there = bench.converting("to-mxfp4", bench.source, original, "--layout", "original")
    back = bench.converting("to-mxfp4", original, out, "--tokenizer", str(bench.source))
    jobs = from_source + _there_and_back(
        ("to-mxfp4 HF --layout original", there), ("to-mxfp4 ORIGINAL", back), original, out
    )
    decode, encode = bench.converting("to-bf16", bench.source, bf16), bench.converting("to-mxfp4", bf16, out)
    return jobs + _there_and_back(("to-bf16", decode), ("to-mxfp4 BF16", encode), bf16, out)


def _there_and_back(there: tuple[str, list[str]], back: tuple[str, list[str]], between: Path, out: Path) -> list[Job]:
    """Both commands run, without and with their proofs; `between` is what the first writes and the second reads."""
    going, coming = both(*there, ""), both(*back, "")
    for job in going:
        settle([between])
        job.run()
    for job in coming:
        job.run()
        settle([out])
    settle([between])
    return going + coming
