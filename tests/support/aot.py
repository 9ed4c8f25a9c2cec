"""`make aot`: compiles every kernel for GPUs that need not be there, and prints the tables of docs/hardware.md.

It proves that a kernel compiles, spills no registers, fits the part's shared memory and uses the part's tensor cores.
It says nothing about results or speed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hardware_page import encoding_table, ladder_table

from gptoss_convert.kernels.architectures import ARCHITECTURES, HARDWARE, NATIVE, SCALAR

SCRIPT = Path(__file__).with_name("aot_compile.py")
ROOT = Path(__file__).resolve().parents[2]
TARGETS = tuple(dict.fromkeys(row.proof for row in ARCHITECTURES.values() if row.proof))
# Rows of the left operand from which a part's widest instruction must be used.
WIDE_ROWS = 64


@dataclass(frozen=True)
class Result:
    """What became of a kernel on a target.

    Args:
        spills: bytes of memory that a thread has in place of registers.
        scaled: the elements of products that take scales themselves, as their instruction has it.
        dots: (kind, rows of the left operand).
    """

    kernel: str
    target: str
    error: str = ""
    registers: int = 0
    spills: int = 0
    shared: int = 0
    instructions: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    converts: bool = False
    dots: tuple[tuple[str, int], ...] = ()

    def faults(self) -> list[str]:
        """What is wrong with it, as clauses; empty if all is well."""
        if self.error:
            return [self.error]
        limit = ARCHITECTURES[self.target].shared_bytes
        faults = [f"spills {self.spills} bytes"] if self.spills else []
        if self.shared > limit:
            faults.append(f"takes {self.shared:,} bytes of shared memory of {limit:,}")
        return faults + self._instruction_faults()

    def _instruction_faults(self) -> list[str]:
        architecture = ARCHITECTURES[self.target]
        if architecture.rung == SCALAR:
            return [f"uses {self.instructions}, and there are none on {self.target}"] if self.instructions else []
        narrow = [(kind, rows) for kind, rows in self.dots if kind != "f32"]
        faults = []
        if narrow and not set(self.instructions) & set(architecture.dots):
            faults.append(f"its products became {self.instructions or 'no instruction'}, not {architecture.dots}")
        elif any(rows >= WIDE_ROWS for _, rows in narrow) and architecture.dots[0] not in self.instructions:
            faults.append(f"a product of {WIDE_ROWS} rows became {self.instructions}, not {architecture.dots[0]}")
        scaled = any(kind == "scaled" for kind, _ in self.dots)
        if scaled and self.converts != (architecture.rung == HARDWARE):
            faults.append(f"converts by instruction: {self.converts}, against the ladder")
        return faults + self._native_faults() if any(kind == "native" for kind, _ in self.dots) else faults

    def _native_faults(self) -> list[str]:
        """Of products whose operands both have scales."""
        if not ARCHITECTURES[self.target].native:
            return [f"{self.target} has no product with scales"]
        if not self.scaled:
            return ["its products take no scales: they are multiplied in before"]
        return ["converts codes to bfloat16"] if self.converts else []


def catalogue() -> list[tuple[str, tuple[str, ...]]]:
    """The kernels' names, and for each the targets it is meant for."""
    from gptoss_convert.kernels.catalogue import KERNELS

    return [(entry.name, tuple(target for target in TARGETS if target in entry.archs)) for entry in KERNELS]


def compile_kernels(target: str, kernels: Sequence[str], cache_folder: Path | None = None) -> list[Result]:
    """One process after another until every kernel is done: a kernel that ends the process is a result, too."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "results.jsonl"
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment |= {"TRITON_DEFAULT_FP_FUSION": "1", "TRITON_CACHE_DIR": str(cache_folder or directory)}
        while len(results) < len(kernels):
            out.unlink(missing_ok=True)
            command = [sys.executable, str(SCRIPT), target, str(out), *kernels[len(results) :]]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
            rows = [json.loads(line) for line in lines]
            results += [_result(target, row) for row in rows if "begun" not in row]
            if rows and "begun" in rows[-1]:
                results.append(Result(rows[-1]["kernel"], target, f"the compiler died, exit code {done.returncode}"))
            elif not rows:
                raise RuntimeError(f"nothing was compiled for {target}:\n{done.stderr[-2000:]}")
    return results


def _result(target: str, row: dict[str, Any]) -> Result:
    lists = {name: tuple(row.pop(name, ())) for name in ("instructions", "scaled")}
    lists["dots"] = tuple(map(tuple, row.pop("dots", ())))
    return Result(target=target, **row, **lists)


def compile_all(wanted: Iterable[tuple[str, Sequence[str]]], cache_folder: Path | None = None) -> list[Result]:
    """Results for (target, kernels), as many targets at a time as there are processors."""
    jobs = [(target, names) for target, names in wanted if names]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = pool.map(lambda job: compile_kernels(*job, cache_folder), jobs)
        return [result for results in done for result in results]


def everything() -> list[tuple[str, list[str]]]:
    return [(target, [name for name, targets in catalogue() if target in targets]) for target in TARGETS]


def row_of(kernel: str) -> str:
    """The matrix's row for a kernel: tiles and gate_up or linear are put together, and dots but those of MXFP4."""
    words = kernel.split()
    if words[0] in ("decode", "quantize"):
        return words[0]
    if words[0] == "GEMV":
        return f"GEMV {words[2]}"
    if words[0] == "GEMM":
        return f"GEMM {words[3]}, {words[1]}" if words[3] == "MXFP4" else f"GEMM {words[3]}"
    return kernel


def sample() -> list[tuple[str, list[str]]]:
    """Of each row of the matrix the largest form, for one of its targets in turn; MXFP4's own products for all."""
    chosen: dict[str, list[str]] = {target: [] for target in TARGETS}
    rows: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for name, targets in catalogue():
        rows.setdefault(row_of(name), []).append((name, targets))
    own = ("GEMV MXFP4", *(f"GEMM MXFP4, {dot}" for dot in ("scaled", *NATIVE)))
    for turn, (row, forms) in enumerate(rows.items()):
        meant = [target for target in TARGETS if any(target in targets for _, targets in forms)]
        for target in meant if row in own else (meant[turn % len(meant)],):
            chosen[target] += [name for name, targets in forms if target in targets][-1:]
    return list(chosen.items())


def matrix_rows() -> list[str]:
    """Kernel by kernel, in each encoding by encoding, as the catalogue has them."""
    rows = list(dict.fromkeys(row_of(name) for name, _ in catalogue()))
    kernels, encodings = ([re.split(r"[ ,]+", f"{row} ")[i] for row in rows] for i in (0, 1))
    order = sorted(range(len(rows)), key=lambda i: (kernels.index(kernels[i]), encodings.index(encodings[i])))
    return [rows[i] for i in order]


def cell(results: Sequence[Result]) -> str:
    """Of one row and target: the products' instruction, the most registers, the most kilobytes of shared memory."""
    if not results:
        return ""
    faults = [fault for result in results for fault in result.faults()]
    if faults:
        return f"**{faults[0]}**"
    used = {name for result in results for name in result.instructions}
    used_scaled = sorted({name for result in results for name in result.scaled})
    dots = [name for name in ARCHITECTURES[results[0].target].dots if name in used]
    names = " ".join([*dots, *used_scaled]) or "–"
    registers, shared = (max(getattr(result, name) for result in results) for name in ("registers", "shared"))
    return f"{names} {registers} / {shared / 1024:.0f}"


def matrix(results: Sequence[Result], targets: Sequence[str] = TARGETS) -> list[str]:
    """Markdown: a row for each kernel and encoding, a column for each target."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((row_of(result.kernel), result.target), []).append(result)
    lines = [f"| kernel | {' | '.join(targets)} |", "|" + "---|" * (1 + len(targets))]
    for row in matrix_rows():
        lines.append(f"| {row} | {' | '.join(cell(found.get((row, target), [])) for target in targets)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Compiles every kernel for every target and prints a matrix.")
    parser.add_argument("cache", type=Path, help="where to keep what was compiled")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    results = compile_all([job for job in everything() if job[0] in arguments.targets], arguments.cache.resolve())
    for table in (ladder_table(), encoding_table(), matrix(results, arguments.targets)):
        print("\n".join(table), end="\n\n")
    bad = [result for result in results if result.faults()]
    for result in bad:
        print(f"{result.target}: {result.kernel}: {'; '.join(result.faults())}")
    print(f"triton {version('triton')}: {len(results)} compilations, {len(bad)} with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
