"""`gptoss-convert prepare` as users meet it."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import nothing_left_in
from command_line import command, refused


def test_a_run_says_the_verdict_the_proof_and_the_command(tiny: Path, tmp_path: Path) -> None:
    outcome = command("prepare", tiny, tmp_path / "out.gguf", "--for", "ampere")
    assert outcome.code == 0
    assert "fits: it needs" in outcome.out
    assert "verified: " in outcome.out
    assert outcome.out.splitlines()[-1].startswith(f"  llama-server -m {tmp_path / 'out.gguf'}")


def test_a_dry_run_writes_nothing_and_has_the_same_sizes(tiny: Path, tmp_path: Path) -> None:
    arguments = ("prepare", tiny, tmp_path / "out", "--for", "ollama", "--json")
    with nothing_left_in(tmp_path):
        planned = command(*arguments, "--dry-run").json
    done = command(*arguments).json
    assert planned["files"] == done["files"]
    assert {file["path"]: file["bytes"] for file in planned["files"]} == {
        str(path): path.stat().st_size for path in (tmp_path / "out").iterdir()
    }
    assert (planned["run"], done["run"]["verified"]) == (None, True)


def test_quiet_says_nothing(tiny: Path, tmp_path: Path) -> None:
    assert command("prepare", tiny, tmp_path / "out.gguf", "--for", "llama.cpp", "-q").out == ""


@pytest.mark.parametrize(
    ("options", "parts"),
    [(("--device", "3080"), ("no such device", "RTX 3090")), (("--for", "vllm", "--device", "T4"), ("does not run",)),
     (("--context", "200000"), ("--context 1 to 131072",))],
)  # fmt: skip
def test_requests_that_cannot_be_meant_are_refused(
    tiny: Path, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    refused(command("prepare", tiny, *options), *parts, code=2)


def test_an_unknown_purpose_lists_the_known_ones(tiny: Path) -> None:
    outcome = command("prepare", tiny, "--for", "frog")
    assert outcome.code == 2
    assert "'ampere'" in outcome.err


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    refused(command("prepare", tmp_path / "nowhere", "--for", "ampere"), "not a gpt-oss checkpoint")
