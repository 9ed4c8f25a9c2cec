"""Runs `check_kernels.py` in a process of its own, once for each device and group, and keeps the figures."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("check_kernels.py")


class Figures:
    """The figures of one group by name."""

    def __init__(self, group: str, found: dict[str, Any]) -> None:
        self._group, self._found = group, found

    def __getitem__(self, name: str) -> Any:
        key = f"{self._group}: {name}"
        if key not in self._found:
            raise AssertionError(self._found.get(f"{self._group} broke", f"no figure is called {key!r}"))
        return self._found[key]

    def names(self, prefix: str) -> list[str]:
        """All names that begin so."""
        start = f"{self._group}: "
        return [key.removeprefix(start) for key in self._found if key.startswith(start + prefix)]


@functools.cache
def figures(device: str, group: str) -> Figures:
    """The figures of a group: `device` is "cpu", by the interpreter, or "cuda"."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if device == "cpu" else "0"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), device, group]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Figures(group, json.loads(done.stdout))
