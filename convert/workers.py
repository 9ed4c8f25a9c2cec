"""A small pool of threads that share one list of slabs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from ..formats.codecs.slab import Scratch
from .plan import Group

# More threads than this wait for the disk or for memory.
MAX_WORKERS = 4

Slabs = Iterable[tuple[Group, int, int]]


def n_workers() -> int:
    """Threads to use on this machine: one per core, two at least (one may wait for the disk), four at most."""
    return max(2, min(MAX_WORKERS, os.cpu_count() or 1))


def run_slabs(slabs: Slabs, work: Callable[[Group, int, int, Scratch], None]) -> None:
    """Calls `work(group, begin, end, scratch)` for every slab, in order of taking, each worker with its own scratch.

    Raises:
        Whatever the first failing call raised, after the others finished their slab.
    """
    queue = iter(slabs)
    lock = threading.Lock()
    failures: list[BaseException] = []
    stop = threading.Event()

    def worker() -> None:
        scratch = Scratch()
        while not stop.is_set():
            with lock:
                slab = next(queue, None)
            if slab is None:
                return
            try:
                work(*slab, scratch)
            except BaseException as error:
                failures.append(error)
                stop.set()

    threads = [threading.Thread(target=worker, name=f"slabs-{number}", daemon=True) for number in range(n_workers())]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                # A plain join would not let Ctrl-C through on Windows.
                thread.join(timeout=0.2)
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise failures[0]
