"""The command line as users meet it: in this process through `main`, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from checkpoints import nothing_left_in

from gptoss_convert.convert import cli

Argument = str | Path


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object it must be."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def says(self, *parts: object) -> bool:
        """Whether the error holds every one of `parts`. Terminal width breaks no line of it."""
        missing = [str(part) for part in parts if str(part) not in self.err]
        assert not missing, f"{missing} not in: {self.err}"
        return True


def command(*arguments: Argument) -> Outcome:
    """Runs `gptoss-convert` in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["gptoss-convert", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _exit_code(cli.main)
    return Outcome(code, out.getvalue(), err.getvalue())


def _exit_code(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    raise AssertionError("the command did not exit")


def process(
    *arguments: Argument,
    env: Mapping[str, str] | None = None,
    stdout: str | None = None,
    prepare: Callable[[], object] | None = None,
) -> Outcome:
    """Runs the installed console script.

    Args:
        env: more environment variables.
        stdout: a file or device for standard output, which is then not returned.
        prepare: called in the new process before the script (not on Windows).
    """
    script = Path(sys.executable).with_name("gptoss-convert")
    with contextlib.ExitStack() as stack:
        done = subprocess.run(
            [str(script), *map(str, arguments)],
            stdout=subprocess.PIPE if stdout is None else stack.enter_context(Path(stdout).open("wb")),
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **(env or {})},
            preexec_fn=prepare,
            check=False,
        )
    return Outcome(done.returncode, done.stdout or "", done.stderr)


def refused(outcome: Outcome, *parts: object, code: int = 1) -> None:
    """Fails unless the command failed with one clean message that holds every one of `parts`."""
    assert outcome.code == code
    assert outcome.out == ""
    assert outcome.says(*parts)
    assert "Traceback" not in outcome.err


def refuses(source: Path, *parts: object, options: Sequence[str] = ()) -> None:
    """Fails unless `to-gguf` of `source` fails with such a message and leaves the directory around it as it was."""
    with nothing_left_in(source.parent):
        outcome = command("to-gguf", source, source.parent / "out.gguf", *options)
    refused(outcome, *parts)
