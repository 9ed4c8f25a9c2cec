"""`make bench`: our commands beside `cp` and `dd` of the same bytes on the same disk, and the encoder beside its peers.

Every round runs each job once, in turn, so that a slow moment of the machine falls on all of them; ratios are taken
inside a round. Sources are in the page cache as far as they fit, outputs are deleted and the disk is quiet before each
job, and a first round is not counted. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import bench_tables
from bench_jobs import machine
from bench_memory import benches, print_memory
from bench_tables import Bench

# How often the checkpoint's bytes are on the disk at once beside the source, as MXFP4 and as BF16.
TABLES: dict[str, tuple[Callable[[Bench], None], int, int]] = {
    "to-gguf": (bench_tables.to_gguf, 1, 0),
    "same-bytes": (bench_tables.same_bytes, 2, 0),
    "repacked": (bench_tables.repacked, 2, 0),
    "to-bf16": (bench_tables.to_bf16, 0, 1),
    "quantize": (bench_tables.quantize, 1, 1),
    "start": (bench_tables.start, 0, 0),
}
ENCODE = "encode"
MEMORY_COPIES = (1, 1)
SPARE = 1 << 30


def needed(bench: Bench, packed: int, bf16: int) -> int:
    """Bytes that tables which hold so many copies will add to the disk."""
    source = 0 if bench.source.exists() else bench.packed_bytes
    return source + packed * bench.packed_bytes + bf16 * bench.bf16_bytes


def check_space(directory: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    print(f"Needs up to {n_bytes / 1e9:.1f} GB in {directory}; {free / 1e9:.1f} GB are free.", file=sys.stderr)
    if free < n_bytes + SPARE:
        sys.exit("Too little. Fewer --layers, or --only one table, need less.")


def run_tables(bench: Bench, names: list[str]) -> None:
    commands = [TABLES[name] for name in names if name != ENCODE]
    if commands:
        check_space(bench.directory, max(needed(bench, packed, bf16) for _, packed, bf16 in commands))
        bench.prepare()
    for run, _, _ in commands:
        run(bench)
    if ENCODE in names:
        from bench_encode import bench_encoders

        bench_encoders(bench.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", choices=[*TABLES, ENCODE], help="one table")
    parser.add_argument("--memory", action="store_true", help="peak memory of every command for three shapes, instead")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    print(machine())
    if options.memory:
        check_space(options.directory, max(needed(bench, *MEMORY_COPIES) for bench in benches(options.directory)))
        print_memory(options.directory)
        return
    bench = Bench(options.directory, "20b", options.layers, options.rounds)
    run_tables(bench, [options.only] if options.only else [*TABLES, ENCODE])


if __name__ == "__main__":
    main()
