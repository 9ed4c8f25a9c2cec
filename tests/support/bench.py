"""`make bench`: to-gguf beside `cp` of the same files on the same disk, and the start-up time of the command.

Every round runs each job once, in turn, so that a slow moment of the machine falls on all of them; the ratio to `cp` is
taken inside a round. The sources are in the page cache, outputs are deleted and the disk is quiet before each job.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("gptoss-convert"))


@dataclass
class Job:
    """A command and what its runs took: seconds, and the peak of anonymous memory in bytes (Linux only)."""

    name: str
    command: list[str]
    target: str
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


def anonymous_bytes(pid: int) -> int:
    """Resident anonymous memory of a process, 0 where that cannot be told."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def settle(*outputs: Path) -> None:
    """Deletes outputs and waits until the disk is quiet."""
    for output in outputs:
        if output.is_dir():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)
    if hasattr(os, "sync"):
        os.sync()


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


def bench_conversion(directory: Path, layers: int, rounds: int) -> None:
    source, copy, out = directory / "hf", directory / "copy", directory / "out.gguf"
    if not source.exists():
        subprocess.run([COMMAND, "make-demo", str(source), "--preset", "20b", "--layers", str(layers)], check=True)
    n_bytes = sum(path.stat().st_size for path in source.iterdir())
    convert = [COMMAND, "to-gguf", str(source), str(out), "--quiet"]
    jobs = [
        Job("`cp -r`", ["cp", "-r", str(source), str(copy)], ""),
        Job("`cp -r`, then `sync`", ["sh", "-c", f"cp -r '{source}' '{copy}' && sync '{copy}'/*"], ""),
        Job("`to-gguf --no-verify`", [*convert, "--no-verify"], "≤ 1.3"),
        Job("`to-gguf`", convert, "≤ 2"),
    ]
    settle(copy, out)
    jobs[0].run()  # the source comes into the page cache
    jobs[0].seconds.clear()
    for number in range(rounds):
        for job in jobs:
            settle(copy, out)
            job.run()
        print(
            f"round {number + 1} of {rounds}: " + ", ".join(f"{job.name} {job.seconds[-1]:.2f} s" for job in jobs),
            file=sys.stderr,
        )
    settle(copy, out)
    print(f"\n`make-demo --preset 20b --layers {layers}`, {n_bytes / 1e9:.2f} GB, {rounds} rounds; {machine()}\n")
    print(
        "| job | seconds, median (min – max) | ratio to `cp`, median (min – max) | to reach | peak anonymous memory |"
    )
    print("|---|---|---|---|---|")
    for job in jobs:
        ratios = [mine / copied for mine, copied in zip(job.seconds, jobs[0].seconds, strict=True)]
        memory = f"{job.peak_bytes / 1e6:.0f} MB"
        print(f"| {job.name} | {spread(job.seconds)} | {spread(ratios)} | {job.target} | {memory} |")


def bench_start(rounds: int) -> None:
    """Start-up time, which is most of what a short command takes."""
    print("\n| command | seconds, median (min – max) | to reach |\n|---|---|---|")
    for arguments in (["--help"], ["inspect", "--help"]):
        job = Job("gptoss-convert " + " ".join(arguments), [COMMAND, *arguments], "< 0.3")
        for _ in range(rounds + 1):
            job.run()
        print(f"| `{job.name}` | {spread(job.seconds[1:])} | {job.target} |")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    bench_conversion(options.directory, options.layers, options.rounds)
    bench_start(options.rounds)


if __name__ == "__main__":
    main()
