"""The official repositories: their digests are known here, and win over what a server says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hub_server import COMMIT, Repository

from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.hub.errors import HubError
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.official import OFFICIAL, OfficialRepository, Published
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.hub.source import resolved
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B, official_config

SHARD = "model-00000-of-00003.safetensors"


@pytest.mark.parametrize(
    ("name", "values"), [("openai/gpt-oss-20b", GPT_OSS_20B), ("openai/gpt-oss-120b", GPT_OSS_120B)]
)
def test_digest_of_the_config_is_that_of_the_config_rebuilt_from_data(name: str, values: dict[str, object]) -> None:
    content = official_config(values)
    assert OFFICIAL[name].files["config.json"] == Published(len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("preset", ["20b", "120b"])
def test_sizes_are_those_of_a_model_of_that_shape(preset: str, tmp_path: Path) -> None:
    planned = {path.name: n_bytes for path, n_bytes in plan_demo(tmp_path / "demo", preset).sizes}
    published = {name: file.n_bytes for name, file in OFFICIAL[f"openai/gpt-oss-{preset}"].files.items()}
    weights = [name for name in published if name.startswith("model")]
    assert len(weights) == {"20b": 4, "120b": 16}[preset]
    assert {name: published[name] for name in weights} == {name: planned[name] for name in weights}


def test_every_digest_is_of_another_file() -> None:
    for repository in OFFICIAL.values():
        digests = [file.sha256 for file in repository.files.values() if file.sha256]
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
        assert len(set(digests)) == len(digests) > 8


@pytest.fixture
def known(own: Repository, monkeypatch: pytest.MonkeyPatch) -> OfficialRepository:
    """org/own as if it were official, its files known at the revision that the server has."""
    files = {
        name: Published(
            (own.directory / name).stat().st_size, hashlib.sha256((own.directory / name).read_bytes()).hexdigest()
        )
        for name in own.names()
    }
    official = OfficialRepository(COMMIT, files)
    monkeypatch.setitem(OFFICIAL, "org/own", official)
    return official


def test_files_as_published_are_taken(known: OfficialRepository, hub: Hub) -> None:
    with resolved("org/own", Need.WEIGHTS, hub=hub) as source:
        assert source.path.is_dir()


@pytest.mark.parametrize("need", [Need.HEADERS, Need.PLAN, Need.WEIGHTS])
@pytest.mark.parametrize("commit", [COMMIT, "f" * 40], ids=["known revision", "later revision"])
def test_other_weights_are_refused_before_anything_is_fetched(
    need: Need, commit: str, known: OfficialRepository, own: Repository, hub: Hub
) -> None:
    own.commit = commit
    path = own.directory / SHARD
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    message = f"org/own/{SHARD}: the Hub offers another file than the official one .* give org/own@{COMMIT}"
    with pytest.raises(HubError, match=message), resolved("org/own", need, hub=hub):
        pass


def test_small_file_that_is_other_than_known_is_refused_though_the_server_vouches_for_it(
    known: OfficialRepository, own: Repository, hub: Hub
) -> None:
    path = own.directory / "config.json"
    path.write_bytes(path.read_bytes().replace(b"silu", b"gelu"))
    with pytest.raises(HubError, match=r"org/own/config\.json: .* its SHA-256 differs"):  # noqa: SIM117
        with resolved("org/own", Need.WEIGHTS, hub=hub):
            pass


def test_small_file_of_a_later_revision_is_taken_and_that_is_said(
    known: OfficialRepository, own: Repository, hub: Hub
) -> None:
    own.commit = "f" * 40
    (own.directory / "chat_template.jinja").write_text("A new template.", encoding="utf-8")
    with resolved("org/own", Need.WEIGHTS, hub=hub) as source:
        assert f"Changed since revision {COMMIT[:7]}, whose files are known here: chat_template.jinja." in source.notes


def test_other_repositories_are_not_compared(own: Repository, hub: Hub) -> None:
    with resolved("org/own", Need.HEADERS, hub=hub) as source:
        assert source.origin is not None
        assert source.origin.notes == ()
