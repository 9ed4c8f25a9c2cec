"""Commands run in turn, timed, and watched for memory; the Markdown that says what they took."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Job:
    """A command and what its runs took: seconds, and the peak of anonymous memory in bytes (Linux only).

    Args:
        aim: what its ratio or its rate should be, to print beside it.
    """

    name: str
    command: list[str]
    aim: str = ""
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def run(self) -> None:
        started = time.monotonic()
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        watcher = threading.Thread(target=self._watch, args=(process,))
        watcher.start()
        _, errors = process.communicate()
        self.seconds.append(time.monotonic() - started)
        watcher.join()
        if process.returncode != 0:
            sys.exit(f"{self.name} failed: {errors}")

    def _watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes(process.pid))
            time.sleep(0.02)

    @property
    def peak(self) -> str:
        return f"{self.peak_bytes / 1e6:.0f} MB"


def anonymous_bytes(pid: int) -> int:
    """Resident anonymous memory of a process, 0 where that cannot be told."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def run_in_turn(jobs: list[Job], rounds: int, outputs: list[Path]) -> None:
    """Runs every job once to warm up, then once in each round, so that a slow moment falls on all of them."""
    for number in range(rounds + 1):
        for job in jobs:
            settle(outputs)
            job.run()
        took = ", ".join(f"{job.name} {job.seconds[-1]:.2f} s" for job in jobs)
        print(f"round {number} of {rounds}: {took}", file=sys.stderr)
    settle(outputs)
    for job in jobs:
        job.seconds.pop(0)


def settle(outputs: list[Path]) -> None:
    """Deletes outputs and waits until the disk is quiet, so that no job pays for another's writes."""
    for output in outputs:
        if output.is_dir():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)
    if hasattr(os, "sync"):
        os.sync()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def print_ratios(jobs: list[Job]) -> None:
    """The table of jobs, each beside the first of them; ratios are taken inside a round."""
    first = jobs[0].seconds
    _print(
        jobs, f"ratio to {jobs[0].name}", lambda job: [mine / its for mine, its in zip(job.seconds, first, strict=True)]
    )


def print_rates(jobs: list[Job], n_bytes: int, of: str) -> None:
    """The table of jobs by what they read per second."""
    _print(jobs, f"GB/s of {of}", lambda job: [n_bytes / 1e9 / seconds for seconds in job.seconds])


def _print(jobs: list[Job], measure: str, measured: Callable[[Job], list[float]]) -> None:
    print(f"| job | seconds, median (min – max) | {measure} | to reach | peak anonymous memory |")
    print("|---|---|---|---|---|")
    for job in jobs:
        print(f"| {job.name} | {spread(job.seconds)} | {spread(measured(job))} | {job.aim} | {job.peak} |")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
