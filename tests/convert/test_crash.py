"""kill -9 at any moment: nothing under the final name, what was there before is untouched, the next run succeeds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Argument, command

from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE

SLOW_COMMAND = Path(__file__).parents[1] / "support" / "slow_command.py"
# numba takes longer to import than the rest takes to run.
ENVIRONMENT = {**os.environ, NO_NUMBA_VARIABLE: "1"}
SPLIT = ("--split-max-size", "1M")
SHARDS = [f"tiny-{number:05d}-of-00004.gguf" for number in range(1, 5)]


def start(*arguments: Argument) -> subprocess.Popen[str]:
    command_line = [sys.executable, str(SLOW_COMMAND), *map(str, arguments)]
    return subprocess.Popen(
        command_line, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )


def killed_at(moment: str, number: int, *arguments: Argument) -> None:
    """Runs a command that kills itself at that moment."""
    with start(0, moment, number, *arguments) as process:
        output, _ = process.communicate()
    assert process.returncode not in (0, 1, 2), f"it was not killed at {moment} {number}"
    assert "begun" in output


def names(directory: Path) -> set[str]:
    """Everything in the directory but what a killed run may leave."""
    return {path.name for path in directory.iterdir() if path.suffix not in (".partial", ".lock")}


def succeeds(*arguments: Argument) -> None:
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("seed", range(5))
def test_kill_at_a_random_moment_leaves_no_output_and_the_next_run_succeeds(
    seed: int, tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tiny.gguf"
    with start(0.01, "never", 0, "to-gguf", tiny, out) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(random.Random(seed).uniform(0, 0.6))
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
    assert names(tmp_path) == set()
    succeeds("to-gguf", tiny, out)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    assert out.read_bytes() == tiny_gguf.read_bytes()


MOMENTS = [("writing", 0), ("writing", 40), ("verifying", 0), ("verifying", 40), ("renaming", 0)]


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_kill_at_a_chosen_moment_leaves_no_output(moment: str, number: int, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    killed_at(moment, number, "to-gguf", tiny, out)
    assert names(tmp_path) == set()
    succeeds("to-gguf", tiny, out)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_existing_output_survives_a_kill_untouched(moment: str, number: int, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    out.write_bytes(b"older")
    killed_at(moment, number, "to-gguf", tiny, out, "--force")
    assert out.read_bytes() == b"older"
    succeeds("to-gguf", tiny, out, "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("number", range(4))
def test_kill_between_the_renames_of_shards_leaves_no_first_shard(number: int, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    killed_at("renaming", number, "to-gguf", tiny, out, *SPLIT)
    assert names(tmp_path) == set(SHARDS[4 - number :])
    succeeds("to-gguf", tiny, out, *SPLIT, "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == SHARDS


@pytest.mark.parametrize("number", range(1, 4))
def test_kill_between_the_renames_never_mixes_old_and_new_shards(number: int, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    succeeds("to-gguf", tiny, out, *SPLIT)
    killed_at("renaming", number, "to-gguf", tiny, out, *SPLIT, "--force")
    assert SHARDS[0] not in names(tmp_path), "llama.cpp would load an old first shard with new others"
    succeeds("to-gguf", tiny, out, *SPLIT, "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == SHARDS


@pytest.mark.parametrize(("moment", "number"), [("writing", 40), ("renaming", 0)])
def test_killed_demo_leaves_no_directory(moment: str, number: int, tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    killed_at(moment, number, "make-demo", directory)
    assert names(tmp_path) == set()
    succeeds("make-demo", directory)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("number", [0, 3, 10])
def test_demo_killed_in_an_empty_directory_is_never_taken_for_a_whole_one(number: int, tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    directory.mkdir()
    killed_at("renaming", number, "make-demo", directory)
    assert command("inspect", directory).code == 1
