"""Shell completion: the scripts for four shells, and what they are answered when the tab key is pressed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import typer
from command_line import Outcome, command, process
from typer.core import TyperGroup

from gptoss_convert.convert.cli import app
from gptoss_convert.convert.cli import options as opt

PROGRAM, VARIABLE = "gptoss-convert", "_GPTOSS_CONVERT_COMPLETE"
SHELLS = ("bash", "zsh", "fish", "powershell")
VALUES = {
    "drift A B --depth": opt.DepthName,
    "drift A B --as": opt.ConsumerName,
    "prepare SRC --for": opt.PurposeName,
    "prepare SRC --scale-rule": opt.ScaleRuleName,
    "to-gguf SRC OUT --dialect": opt.DialectName,
    "to-gguf SRC OUT --type": opt.DenseType,
    "to-gguf SRC OUT --experts": opt.ExpertType,
    "to-mxfp4 SRC OUT --layout": opt.LayoutName,
    "make-demo OUT --preset": opt.PresetName,
    "validate SRC --device": opt.DeviceName,
}


def group() -> TyperGroup:
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found


def asked(shell: str, line: str, action: str = "get-args") -> Outcome:
    """What the command answers to the shell's script after the tab key at the end of `line`."""
    line = f"{PROGRAM} {line}"
    words = line.split(" ")
    said = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": action},
        "powershell": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1]},
    }
    with mock.patch.dict(os.environ, {VARIABLE: f"complete_{shell}"} | said[shell]):
        return command()


def completions(shell: str, line: str) -> list[str]:
    """The words that the shell offers."""
    outcome = asked(shell, line)
    assert outcome.err == ""
    if shell == "zsh":
        return re.findall(r'(?:\(\(|\n)"([^":]+)"', re.sub(r'":"(?:[^"\\]|\\.)*"', '"', outcome.out))
    return [re.split(r"\t|:::", one)[0] for one in outcome.out.splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_are_completed(shell: str) -> None:
    assert completions(shell, "") == list(group().commands)
    assert completions(shell, "to-m") == ["to-mxfp4", "to-mlx", "to-metal"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", group().commands)
def test_every_option_is_completed(name: str, shell: str) -> None:
    options = [one for one in group().commands[name].params if one.param_type_name == "option"]
    assert set(completions(shell, f"{name} --")) == {*(one.opts[0] for one in options), "--help"}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", VALUES)
def test_values_are_completed(line: str, shell: str) -> None:
    names = [one.value for one in VALUES[line]]
    assert completions(shell, f"{line} ") == names
    assert completions(shell, f"{line} {names[-1]}")[-1:] == names[-1:]


def test_every_option_with_named_values_is_tried() -> None:
    said = {one.__name__ for one in vars(opt).values() if isinstance(one, type) and issubclass(one, opt.StrEnum)}
    assert said - {"StrEnum"} == {one.__name__ for one in VALUES.values()}


@pytest.mark.parametrize("line", ["inspect ", "inspect ti", "drift A ", "to-gguf SRC ", "drift A B --prompts "])
def test_paths_are_left_to_the_shell(line: str) -> None:
    assert asked("bash", line).out.strip() == ""
    assert asked("zsh", line).out.strip() == "_files"
    assert asked("fish", line, "is-args").code == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_script_asks_the_command(shell: str) -> None:
    outcome = process("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert (outcome.code, outcome.err) == (0, "")
    assert VARIABLE in outcome.out
    assert f"complete_{shell}" in outcome.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes_with_the_script_it_is_shown() -> None:
    press = f"COMP_WORDS=({PROGRAM} drift A B --depth l); COMP_CWORD=5; _gptoss_convert_completion {PROGRAM}"
    script = f'eval "$({PROGRAM} --show-completion)"; {press}; echo "${{COMPREPLY[@]}}"'
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, encoding="utf-8", env={**os.environ, "PATH": path}, check=True
    )
    assert done.stdout.split() == ["layers", "logits"]


HEAVY = {"torch", "numba", "numpy", "transformers", "triton", "huggingface_hub", "gguf"}

IMPORTS = """
import json, os, sys
from gptoss_convert.convert.cli import main
found = {}
for line in sys.argv[1:]:
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = line, str(line.count(" "))
    sys.argv = ["gptoss-convert"]
    try:
        main()
    except SystemExit:
        found[line] = sorted({name.partition(".")[0] for name in sys.modules})
sys.stderr.write(json.dumps(found))
"""


def test_completing_imports_nothing_heavy() -> None:
    lines = [f"{PROGRAM} {words} " for words in ("", *group().commands, *VALUES)]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *lines],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, VARIABLE: "complete_bash"},
        check=True,
    )
    found = json.loads(done.stderr)
    assert list(found) == lines
    assert {line: HEAVY & set(modules) for line, modules in found.items() if HEAVY & set(modules)} == {}
