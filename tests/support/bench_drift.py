"""`drift` of true shapes beside `cat` of the same files to `/dev/null`, both from a warm page cache.

    bench_drift.py DIRECTORY [--preset 20b] [--layers 4] [--rounds 5]

One row for each pair: a copy in the same layout, another layout with other bytes, BF16 decoded of the same blocks, and
experts that all differ. The page cache must hold both files of a pair, and BF16 is four times as large as MXFP4.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench_jobs import Job, machine, print_ratios, run_in_turn, size, spread
from bench_tables import COMMAND, Bench

from gptoss_convert import open_checkpoint
from gptoss_convert.convert.drift.tensors import compare_tensors

AIM = "≤ 1.67"  # 60 % of the rate


@dataclass(frozen=True)
class Pair:
    """What is compared with the source, and the arguments that make it of the source ("" stands for where)."""

    name: str
    ending: str
    make: tuple[str, ...]


PAIRS = (
    Pair("a copy", "copy", ("cp", "-r", "SRC", "OUT")),
    Pair("its GGUF", "gguf", (COMMAND, "to-gguf", "SRC", "OUT", "--quiet", "--no-verify")),
    Pair("its `original/`", "original", (COMMAND, "to-mxfp4", "SRC", "OUT", "--layout", "original", "--quiet")),
    Pair("its BF16", "bf16", (COMMAND, "to-bf16", "SRC", "OUT", "--quiet", "--no-verify")),
    Pair("another model", "other", (COMMAND, "make-demo", "OUT", "--seed", "1", "--quiet")),
)


def measure(bench: Bench, pair: Pair) -> None:
    other = bench.path(f"drift.{pair.ending}")
    places = {"SRC": str(bench.source), "OUT": str(other)}
    command = [places.get(part, part) for part in pair.make]
    if "make-demo" in command:
        command += ["--preset", bench.preset, "--layers", str(bench.layers)]
    subprocess.run(command, check=True)
    files = [*sorted(bench.source.glob("*.safetensors")), *(sorted(other.glob("*.safetensors")) or [other])]
    reading = " ".join(f"'{file}'" for file in files)
    jobs = [
        Job("`cat A B > /dev/null`", ["sh", "-c", f"cat {reading} > /dev/null"]),
        Job(f"`drift A B`, B is {pair.name}", [COMMAND, "drift", str(bench.source), str(other), "--quiet"], AIM),
    ]
    run_in_turn(jobs, bench.rounds, [])
    print(f"\n{pair.name}: {sum(map(size, files)) / 1e9:.2f} GB in both, {bench.rounds} rounds\n")
    print_ratios(jobs)
    print_weights_alone(bench, jobs[0], other)
    if other.is_dir():
        shutil.rmtree(other)
    else:
        other.unlink()


def print_weights_alone(bench: Bench, reading: Job, other: Path) -> None:
    """The same without Python's start and the tokenizers: what stays as it is when the model has more layers."""
    a, b = open_checkpoint(bench.source), open_checkpoint(other)
    seconds, ratios = [], []
    for _ in range(bench.rounds + 1):
        reading.run()
        begin = time.perf_counter()
        compare_tensors(a, b)
        seconds.append(time.perf_counter() - begin)
        ratios.append(seconds[-1] / reading.seconds[-1])
    print(f"\nweights alone, in a process that runs: {spread(seconds[1:])} s, ratio {spread(ratios[1:])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--preset", default="20b")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[pair.ending for pair in PAIRS], help="one pair")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.directory, options.preset, options.layers, options.rounds)
    print(machine())
    bench.prepare()
    for pair in PAIRS:
        if options.only in (None, pair.ending):
            measure(bench, pair)


if __name__ == "__main__":
    main()
