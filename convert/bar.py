"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from .progress import Progress
from .render import size

# Seconds between plain lines.
LINE_SECONDS = 10.0


def progress_for(console: Console) -> Progress:
    """A bar if `console` is a terminal, else lines on it."""
    return (
        BarProgress(console)
        if console.is_terminal
        else LineProgress(lambda line: console.print(line, highlight=False, markup=False))
    )


class BarProgress(Progress):
    """Bytes, rate, time left and the tensor at hand, in one moving line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def begin(self, what: str, n_bytes: int) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[tensor]}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=n_bytes, tensor="")
        self._bar.start()

    def advance(self, n_bytes: int, tensor: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, advance=n_bytes, tensor=tensor)

    def end(self, *, completed: bool) -> None:  # noqa: ARG002 - a given-up bar vanishes too
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LineProgress(Progress):
    """A line at the start of a stage, every few seconds, and at its end."""

    def __init__(self, write: Callable[[str], None], seconds: float = LINE_SECONDS) -> None:
        self._write = write
        self._seconds = seconds
        self._lock = threading.Lock()

    def begin(self, what: str, n_bytes: int) -> None:
        self._what, self._total, self._done = what, n_bytes, 0
        self._started = self._told = time.monotonic()
        self._write(f"{what} {size(n_bytes)}")

    def advance(self, n_bytes: int, tensor: str) -> None:
        with self._lock:
            self._done += n_bytes
            now = time.monotonic()
            if now - self._told < self._seconds or not self._done:
                return
            self._told = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate
        self._write(
            f"{self._what} {100 * self._done / self._total:.0f} %, {size(rate)}/s, {left:.0f} s left, at {tensor}"
        )

    def end(self, *, completed: bool) -> None:
        state = "done" if completed else "given up"
        self._write(f"{self._what} {state} after {time.monotonic() - self._started:.1f} s")
