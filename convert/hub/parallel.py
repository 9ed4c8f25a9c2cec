"""A few requests at once: the Hub takes its time to answer, and one connection does not fill a fast line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")

N_CONNECTIONS = 4


def for_each(items: Iterable[Item], work: Callable[[Item, threading.Event], None]) -> None:
    """Calls `work(item, stop)` for every item, some at a time; `stop` is set when it is time to give up.

    Raises:
        Whatever the first failing call raised, or KeyboardInterrupt; all threads have ended by then.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(N_CONNECTIONS, thread_name_prefix="hub") as pool:
        futures = [pool.submit(work, item, stop) for item in items]
        try:
            waiting = set(futures)
            while waiting:
                # A wait without end would not let Ctrl-C through on Windows.
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
