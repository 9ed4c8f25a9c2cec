"""A small pool of threads that share one list of slabs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from ..formats.codecs.slab import Scratch
from .plan import Group

# More threads than this wait for the disk or for memory.
MAX_WORKERS = 4

# What all workers' buffers may take together, and how many times its slab a worker takes at most (read, turned,
# quantized, packed). Only slabs of whole experts come near.
_MEMORY_BYTES, _BUFFERS = 400 << 20, 2.5


def n_workers(slab_bytes: int = 0) -> int:
    """Threads to use on this machine: one per core, two at least (one may wait for the disk), four at most.

    `slab_bytes` is what the largest slab has in source and target together.
    """
    affordable = int(_MEMORY_BYTES / (_BUFFERS * slab_bytes)) if slab_bytes else MAX_WORKERS
    return max(2, min(MAX_WORKERS, os.cpu_count() or 1, affordable))


def run_slabs(groups: Sequence[Group], work: Callable[[Group, int, int, Scratch], None]) -> None:
    """Calls `work(group, begin, end, scratch)` for every slab, in order of taking, each worker with its own scratch.

    Raises:
        Whatever the first failing call raised, after the others finished their slab.
    """
    queue = ((group, *rows) for group in groups for rows in group.slabs())
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

    threads_wanted = n_workers(max((group.slab_bytes for group in groups), default=0))
    threads = [threading.Thread(target=worker, name=f"slabs-{number}", daemon=True) for number in range(threads_wanted)]
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
