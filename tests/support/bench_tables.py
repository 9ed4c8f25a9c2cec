"""The tables of `make bench` whose jobs are whole commands on a checkpoint with the shapes of 20b or 120b."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench_jobs import Job, print_rates, print_ratios, run_in_turn, settle, size

COMMAND = str(Path(sys.executable).with_name("gptoss-convert"))
DD_BLOCK = 16 << 20


@dataclass(frozen=True)
class Bench:
    """Where to work, with which checkpoint, and how many rounds. Its files are named for the checkpoint."""

    directory: Path
    preset: str
    layers: int
    rounds: int

    def path(self, name: str) -> Path:
        return self.directory / f"{self.preset}-{self.layers}-{name}"

    @property
    def source(self) -> Path:
        """In the official layout; kept for the next time."""
        return self.path("hf")

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What `make-demo --dry-run` says about the source."""
        command = [*self._make(self.path("planned")), "--dry-run", "--json"]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    @property
    def packed_bytes(self) -> int:
        return int(self.plan["bytes"])

    @property
    def bf16_bytes(self) -> int:
        """More than BF16 needs, by the tokenizer at most."""
        return 2 * int(self.plan["parameters"]) + self.packed_bytes - int(self.plan["tensor_bytes"])

    def prepare(self) -> None:
        """Makes the source unless it is there."""
        if not self.source.exists():
            subprocess.run([*self._make(self.source), "--quiet"], check=True)

    def _make(self, directory: Path) -> list[str]:
        return [COMMAND, "make-demo", str(directory), "--preset", self.preset, "--layers", str(self.layers)]

    def converting(self, name: str, source: Path, out: Path, *options: str) -> list[str]:
        return [COMMAND, name, str(source), str(out), *options, "--quiet"]


def both(name: str, command: list[str], aim: str, proven_aim: str | None = None) -> list[Job]:
    """The command without its proof and with it."""
    return [
        Job(f"`{name} --no-verify`", [*command, "--no-verify"], aim),
        Job(f"`{name}`", command, aim if proven_aim is None else proven_aim),
    ]


def copying(source: Path, copy: Path) -> list[Job]:
    """`cp`, and `cp` that waits for the disk as our commands do."""
    return [
        Job("`cp -r`", ["cp", "-r", str(source), str(copy)]),
        Job(
            "`cp -r`, then `sync`",
            ["sh", "-c", f"cp -r '{source}' '{copy}' && find '{copy}' -type f -exec sync {{}} +"],
        ),
    ]


def caption(bench: Bench, what: str) -> None:
    print(f"\n{what}; `make-demo --preset {bench.preset} --layers {bench.layers}`, {bench.rounds} rounds\n")


def to_gguf(bench: Bench) -> None:
    """to-gguf beside `cp` of the source."""
    copy, out = bench.path("copy"), bench.path("out.gguf")
    jobs = copying(bench.source, copy)
    jobs += both("to-gguf", bench.converting("to-gguf", bench.source, out), "≤ 1.3", "≤ 2")
    run_in_turn(jobs, bench.rounds, [copy, out])
    caption(bench, f"`to-gguf` beside `cp` of the source, {size(bench.source) / 1e9:.2f} GB")
    print_ratios(jobs)


def same_bytes(bench: Bench) -> None:
    """to-mxfp4, hf → original/ and back, beside `cp` of the source."""
    original, copy, out = bench.path("original"), bench.path("copy"), bench.path("out")
    settle([original])
    there = bench.converting("to-mxfp4", bench.source, out, "--layout", "original")
    back = bench.converting("to-mxfp4", original, out, "--tokenizer", str(bench.source))
    Job("to-mxfp4", bench.converting("to-mxfp4", bench.source, original, "--layout", "original", "--no-verify")).run()
    jobs = copying(bench.source, copy)
    jobs += both("to-mxfp4 HF --layout original", there, "≤ 1.2") + both("to-mxfp4 ORIGINAL", back, "≤ 1.2")
    run_in_turn(jobs, bench.rounds, [copy, out])
    settle([original])
    caption(bench, f"`to-mxfp4` beside `cp` of the source, {size(bench.source) / 1e9:.2f} GB")
    print_ratios(jobs)


def repacked(bench: Bench) -> None:
    """to-gguf, to-mlx and to-metal, each beside `cp` of what it writes."""
    for name, ending in (("to-gguf", "gguf"), ("to-mlx", "mlx"), ("to-metal", "bin")):
        reference, copy, out = (bench.path(f"{each}.{ending}") for each in ("reference", "copy", "out"))
        settle([reference])
        Job(name, bench.converting(name, bench.source, reference, "--no-verify")).run()
        jobs = copying(reference, copy) + both(name, bench.converting(name, bench.source, out), "≤ 1.3")
        run_in_turn(jobs, bench.rounds, [copy, out])
        caption(bench, f"`{name}` beside `cp` of its output, {size(reference) / 1e9:.2f} GB")
        settle([reference])
        print_ratios(jobs)


def to_bf16(bench: Bench) -> None:
    """to-bf16 beside `dd` of as many bytes."""
    zeros, out = bench.path("zeros"), bench.path("out")
    command = bench.converting("to-bf16", bench.source, out)
    settle([out])
    Job("to-bf16", [*command, "--no-verify"]).run()
    n_bytes = size(out)
    writing = ["dd", "if=/dev/zero", f"of={zeros}", f"bs={DD_BLOCK}", f"count={round(n_bytes / DD_BLOCK)}"]
    jobs = [Job("`dd`", writing), Job("`dd conv=fsync`", [*writing, "conv=fsync"]), *both("to-bf16", command, "≤ 1.3")]
    run_in_turn(jobs, bench.rounds, [zeros, out])
    caption(bench, f"`to-bf16` beside `dd if=/dev/zero` of as many bytes, {n_bytes / 1e9:.2f} GB")
    print_ratios(jobs)


def quantize(bench: Bench) -> None:
    """to-mxfp4 of a BF16 directory, in bytes read per second."""
    bf16, out = bench.path("bf16"), bench.path("out")
    settle([bf16])
    Job("to-bf16", bench.converting("to-bf16", bench.source, bf16, "--no-verify")).run()
    jobs = both("to-mxfp4 BF16", bench.converting("to-mxfp4", bf16, out), "≥ 1.5")
    reading = Job("`cat` of the source to `/dev/null`", ["sh", "-c", f"cat '{bf16}'/* > /dev/null"])
    run_in_turn([reading, *jobs], bench.rounds, [out])
    n_bytes = size(bf16)
    # 32 values are 64 bytes in BF16 and 17 in MXFP4; nothing but the experts differs.
    experts = (n_bytes - size(bench.source)) * 64 / (64 - 17)
    caption(bench, f"BF16 → MXFP4, rule `exact`, {n_bytes / 1e9:.2f} GB of BF16, {experts / 1e9:.2f} GB of it experts")
    settle([bf16])
    print_rates([reading, *jobs], n_bytes, "BF16")


def start(bench: Bench) -> None:
    """Start-up time, which is most of what a short command takes."""
    jobs = [
        Job(f"`gptoss-convert {' '.join(arguments)}`", [COMMAND, *arguments], "< 0.3 s")
        for arguments in (["--help"], ["inspect", "--help"])
    ]
    run_in_turn(jobs, bench.rounds, [])
    print("\nStart-up\n")
    print_ratios(jobs)
