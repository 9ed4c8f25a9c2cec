"""What is suggested for a name that is nowhere: well-known repositories, and what lies in the same directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import command
from hub_server import HubServer

from gptoss_convert.convert.hub.ids import HubId, parse_id
from gptoss_convert.convert.hub.near import WELL_KNOWN, near_names, near_paths, near_repositories
from gptoss_convert.convert.hub.server import Hub

REPOSITORIES = {
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "gptoss-120b": "openai/gpt-oss-120b",
    "openai/gpt-oss20b": "openai/gpt-oss-20b",
    "OpenAI/GPT-OSS-20B": "openai/gpt-oss-20b",
    "opneai/gpt-oss-120b": "openai/gpt-oss-120b",
    "gpt-oss-20b-gguf": "unsloth/gpt-oss-20b-GGUF",
    "ggml-org/gpt-oss-20b-gguf": "ggml-org/gpt-oss-20b-GGUF",
    "unsloth/gpt-oss-120b-bf-16": "unsloth/gpt-oss-120b-BF16",
    "mlx-community/gpt-oss-20b-mxfp4-q8": "mlx-community/gpt-oss-20b-MXFP4-Q8",
    "lmstudio/gpt-oss-20b-MLX-8bit": "lmstudio-community/gpt-oss-20b-MLX-8bit",
}


@pytest.mark.parametrize("text", REPOSITORIES)
def test_repository_that_is_meant_is_named_first(text: str) -> None:
    assert near_repositories(text)[0] == REPOSITORIES[text]


@pytest.mark.parametrize("text", ["org/my-model", "llama-3-8b", "checkpoint", "", "/", "a/b", "gpt-2"])
def test_nothing_is_suggested_for_what_is_like_none(text: str) -> None:
    assert near_repositories(text) == []


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_a_known_name_is_an_id_and_no_suggestion_for_itself(name: str) -> None:
    assert parse_id(name) == HubId(name)
    assert name not in near_repositories(name)


def test_at_most_three_names_are_suggested_and_each_as_it_is_spelled() -> None:
    names = ["Model-1", "model-2", "model-3", "MODEL-4"]
    found = near_names("model-0", names)
    assert len(found) == 3
    assert set(found) < set(names)


PATHS = {
    "tyny": "tiny",
    "TINY": "tiny",
    "tiny/congif.json": "tiny/config.json",
    "tyny/config.json": "tiny",
    "./tyny": "tiny",
}


@pytest.mark.parametrize("text", PATHS)
def test_path_that_is_meant_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    if Path(text).exists():
        pytest.skip("file names of this system have no case")
    assert near_paths(text) == [str(Path(PATHS[text]))]
    assert near_paths(str(tmp_path / text)) == [str(tmp_path / PATHS[text])]


@pytest.mark.parametrize("text", ["", ".", "/", "a\0b", "n" * 5000, "file/below", "quite another"])
def test_no_path_is_suggested_where_none_is_near(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert near_paths(text) == []


@pytest.fixture
def here(server: HubServer, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the model models/tiny; commands ask the Hub of `server`."""
    del server
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Hub, "from_environment", lambda: hub)
    return tmp_path


def remedy_of(text: str) -> str:
    outcome = command("inspect", text, "--json")
    assert outcome.code == 1
    return str(outcome.json["error"]["remedy"])


@pytest.mark.usefixtures("here")
def test_path_that_could_be_an_id_is_suggested_when_the_hub_knows_no_such_repository() -> None:
    path = Path("models", "tiny")
    assert remedy_of("models/tinny").startswith(f"Did you mean {path}? Check the spelling.")


@pytest.mark.usefixtures("here")
def test_repository_is_suggested_when_the_hub_knows_none_of_that_name() -> None:
    assert remedy_of("unsloth/gpt-oss-20b-BF-16").startswith("Did you mean unsloth/gpt-oss-20b-BF16")


def test_path_that_could_be_an_id_is_suggested_when_the_hub_is_off(
    here: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = Hub(hub.endpoint, here / "cache", is_offline=True)
    monkeypatch.setattr(Hub, "from_environment", lambda: offline)
    assert remedy_of("models/tinny").startswith(f"Did you mean {Path('models', 'tiny')}? Unset HF_HUB_OFFLINE")


@pytest.mark.usefixtures("here")
def test_nothing_is_suggested_for_what_is_like_nothing() -> None:
    assert remedy_of("org/quite-another").startswith("Check the spelling.")
