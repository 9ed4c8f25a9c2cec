"""The environment that huggingface_hub reads: where the Hub and the cache are, the token, and whether to ask at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer, Repository

SCRIPT = """
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.source import opened
from gptoss_convert.formats.errors import GptOssConvertError
try:
    with opened("org/own", Need.WEIGHTS) as found:
        print(found.checkpoint.path)
except GptOssConvertError as error:
    print(error)
"""


def run_with(**variables: str) -> str:
    """What a new process with these variables prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=kept | variables, capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout.strip()


@pytest.fixture
def variables(server: HubServer, own: Repository, tmp_path: Path) -> dict[str, str]:
    own.token = "secret"
    return {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "secret"}


def test_endpoint_home_and_token_are_taken_and_offline_uses_the_cache(
    variables: dict[str, str], server: HubServer, tmp_path: Path
) -> None:
    here = run_with(**variables)
    assert Path(here).is_relative_to(tmp_path / "home" / "hub" / "models--org--own")
    assert (Path(here) / "config.json").is_file()
    asked = [request for request in server.requests if "/org/own/" in request.path]
    assert {request.token for request in asked if not request.by_cdn} == {"secret"}
    server.requests.clear()
    assert run_with(**variables, HF_HUB_OFFLINE="1") == here
    assert not server.requests


def test_cache_has_a_variable_of_its_own(variables: dict[str, str], tmp_path: Path) -> None:
    here = run_with(**variables, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert Path(here).is_relative_to(tmp_path / "elsewhere" / "models--org--own")


def test_token_of_a_log_in_is_taken(variables: dict[str, str], tmp_path: Path) -> None:
    del variables["HF_TOKEN"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("secret", encoding="utf-8")
    assert Path(run_with(**variables)).is_dir()


def test_nothing_in_the_cache_is_said_offline(variables: dict[str, str], server: HubServer) -> None:
    said = run_with(**variables, HF_HUB_OFFLINE="1")
    assert said.startswith("org/own: it is not in the cache, and HF_HUB_OFFLINE forbids to download it")
    assert not server.requests
