"""The command line, slowed and perhaps killed by itself: `slow_command.py PAUSE MOMENT NUMBER ARGUMENTS...`.

It waits PAUSE seconds after every slab and prints "begun" when the first stage begins. MOMENT is "writing", "verifying"
or "renaming": the process kills itself, as kill -9 would, at the NUMBER-th slab of that stage or before the NUMBER-th
rename (from 0). "never" lets it live.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from gptoss_convert.convert import bar, cli, staging
from gptoss_convert.convert.progress import Progress


def die() -> NoReturn:
    """Ends this process at once, without any cleaning up. On Windows SIGTERM does so."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    raise AssertionError("still alive")


class Countdown:
    """Dies when it is asked for the `number`-th time at `moment`."""

    def __init__(self, moment: str, number: int) -> None:
        self.moment, self.left = moment, number

    def reached(self, moment: str) -> None:
        if moment != self.moment:
            return
        if self.left == 0:
            die()
        self.left -= 1


class SlowProgress(Progress):
    """Waits after every slab."""

    def __init__(self, pause: float, countdown: Countdown) -> None:
        self.pause, self.countdown, self.current = pause, countdown, ""

    def begin(self, what: str, n_bytes: int) -> None:
        self.current = what
        sys.stdout.write("begun\n")
        sys.stdout.flush()

    def advance(self, n_bytes: int, tensor: str) -> None:
        time.sleep(self.pause)
        self.countdown.reached(self.current)


def main(pause: str, moment: str, number: str, *arguments: str) -> None:
    countdown = Countdown(moment, int(number))
    really_replace = staging.replace_file

    def replace_file(source: Path, target: Path) -> None:
        countdown.reached("renaming")
        really_replace(source, target)

    staging.replace_file = replace_file
    bar.progress_for = lambda _console: SlowProgress(float(pause), countdown)
    sys.argv = ["gptoss-convert", *arguments]
    cli.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
