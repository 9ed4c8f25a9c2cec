"""How long writing will take: an estimate from a short measurement on the disk that is to be written."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

# Enough to leave the drive's own buffers behind, and written in a blink where it matters.
PROBE_BYTES = 64_000_000
_PIECE_BYTES = 4_000_000


def write_rate(directory: Path) -> float | None:
    """Bytes per second that `directory` takes, synced; None if nothing can be written there.

    64 MB of noise go to a file that has no name on Linux and is gone afterwards everywhere.
    """
    noise = os.urandom(_PIECE_BYTES)
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            started = time.perf_counter()
            for _ in range(PROBE_BYTES // _PIECE_BYTES):
                file.write(noise)
            os.fsync(file.fileno())
            return PROBE_BYTES / (time.perf_counter() - started)
    except OSError:
        return None


def existing(directory: Path) -> Path:
    """The innermost directory of that path that is there."""
    directory = directory.absolute()
    return next(path for path in (directory, *directory.parents) if path.is_dir())
