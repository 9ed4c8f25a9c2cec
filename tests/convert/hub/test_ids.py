"""What a user means by SRC: a path that exists, else a repository; and what is said when it is neither."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_convert.convert.hub.ids import HubId, parse_source
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.source import resolved
from gptoss_convert.formats.errors import CheckpointError, UsageError

IDS = {
    "openai/gpt-oss-20b": HubId("openai/gpt-oss-20b"),
    "hf://openai/gpt-oss-20b": HubId("openai/gpt-oss-20b"),
    "a/b@v1.0": HubId("a/b", "", "v1.0"),
    "a/b@refs/pr/1": HubId("a/b", "", "refs/pr/1"),
    "openai/gpt-oss-20b/original": HubId("openai/gpt-oss-20b", "original"),
    "a/b/c/d.gguf@main": HubId("a/b", "c/d.gguf"),
}


@pytest.mark.parametrize("text", IDS)
def test_id_is_taken_apart(text: str) -> None:
    assert parse_source(text) == IDS[text]


@pytest.mark.parametrize("text", ["a/b", "a/b/c", "a/b@v1", "a/b/c.gguf@refs/pr/2"])
def test_id_is_spelled_as_it_was_given(text: str) -> None:
    assert str(parse_source(text)) == text


NEITHER = {
    "a missing path": "/missing/checkpoint",
    "a relative path": "./missing/checkpoint",
    "one name": "checkpoint",
    "a path upwards": "a/../b",
    "upwards inside": "a/b/../../c",
    "two hyphens": "org/na--me",
    "no revision": "org/name@",
    "a revision upwards": "org/name@../../x",
    "an empty part": "org//name",
    "a trailing slash": "org/name/",
    "a drive": "C:\\models\\tiny",
    "a NUL": "org/na\0me",
    "too long": "a/" + "b" * 5000,
    "a space": "org/my model",
}


@pytest.mark.parametrize("text", NEITHER.values(), ids=NEITHER)
def test_what_is_neither_is_refused_and_both_are_explained(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"a directory or a file that exists, or .* as org/name\[@revision\]"):
        parse_source(text)


def test_malformed_id_with_prefix_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:" / "one").mkdir(parents=True)
    with pytest.raises(UsageError, match="this is no repository of the Hub"):
        parse_source("hf://one")


ADDRESSES = {
    "https://huggingface.co/openai/gpt-oss-20b": "openai/gpt-oss-20b",
    "https://huggingface.co/a/b/tree/v1": "a/b@v1",
    "https://huggingface.co/a/b/blob/main/x.gguf?download=true": "a/b/x.gguf",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_address_of_a_page_is_refused_with_the_id_that_is_meant(text: str) -> None:
    with pytest.raises(UsageError, match=f"an address is not taken.*Give {ADDRESSES[text]}\\.$"):
        parse_source(text)


def test_path_that_exists_wins_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    with resolved("org/name", Need.WEIGHTS) as source:
        assert source.path == Path("org/name")
        assert source.origin is None
        assert source.notes == (
            "org/name is taken as the path that exists here; hf://org/name would be the Hub's repository.",
        )
    assert parse_source("hf://org/name") == HubId("org/name")


def test_path_that_is_no_id_needs_no_words(tmp_path: Path) -> None:
    with resolved(str(tmp_path), Need.HEADERS) as source:
        assert (source.path, source.notes) == (tmp_path, ())


def test_a_path_does_not_import_huggingface_hub(tiny: Path) -> None:
    code = (
        "import sys\n"
        "from gptoss_convert.convert.hub.need import Need\n"
        "from gptoss_convert.convert.hub.source import opened\n"
        f"with opened({str(tiny)!r}, Need.WEIGHTS) as found: assert found.checkpoint.layout == 'hf'\n"
        "assert 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
