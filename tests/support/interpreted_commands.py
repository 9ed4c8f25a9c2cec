"""Runs commands in Triton's interpreter, one after another in one process, whose start is half of their time.

`interpreted_commands.py LIST`: LIST is JSON, a list of lists of arguments; prints a list of [code, out, err].
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from command_line import Argument, Outcome, command


def interpreted(commands: Sequence[Sequence[Argument]]) -> list[Outcome]:
    """How each of the commands ended, run in a process of their own."""
    text = json.dumps([[str(argument) for argument in one] for one in commands])
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__, text], env=environment, capture_output=True, text=True, check=True)
    return [Outcome(*fields) for fields in json.loads(done.stdout)]


def main(text: str) -> None:
    import interpreter
    import torch

    torch.set_num_threads(1)
    interpreter.quicken()
    outcomes = [command(*arguments) for arguments in json.loads(text)]
    print(json.dumps([[one.code, one.out, one.err] for one in outcomes]))


if __name__ == "__main__":
    main(sys.argv[1])
