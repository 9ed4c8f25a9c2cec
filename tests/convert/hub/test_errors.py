"""What a server does wrong, and what a user is told: what, where, and the next command."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, HubServer, Repository

from gptoss_convert.convert.hub.errors import HubError
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.hub.source import brought, resolved

CONFIG = f"/resolve/{COMMIT}/config.json"
LIST = "/api/models/org/own/revision/main"


def fetch(hub: Hub, text: str = "org/own") -> Path:
    return brought(text, hub=hub).path


# --- refused ---


@dataclass(frozen=True)
class Refusal:
    """Who asks for what, and what the message says."""

    message: str
    text: str = "org/own"
    token: str | None = "secret"
    repository: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] | None = None
    path: str = LIST


REFUSALS = {
    "gated, no token": Refusal(
        r"org/own.*: the repository is gated: .*; found no token\. Ask for access at http://.*/org/own, then run "
        "`hf auth login` or set HF_TOKEN, and run the same command again",
        token=None,
        repository={"token": "good", "is_gated": True},
    ),
    "gated, token without access": Refusal(
        "the repository is gated: .*; found a token without access", repository={"token": "good", "is_gated": True}
    ),
    "private, no token": Refusal(
        "there is no such path here, and the Hub has no such repository, or it is private; .* run `hf auth login`",
        token=None,
        repository={"token": "good"},
    ),
    "private, wrong token": Refusal(
        r"the Hub refuses the token; found 401 Invalid credentials.*\. Make a token at http://.*/settings/tokens",
        repository={"token": "good"},
    ),
    "no such repository": Refusal(
        "org/missing: there is no such path here, and the Hub has no such", text="org/missing"
    ),
    "a name with a typo": Refusal(
        r"Did you mean openai/gpt-oss-20b or openai/gpt-oss-120b\?", text="openai/gpt-oos-20b"
    ),
    "a revision with a typo": Refusal(
        "org/own: the repository has no such revision; expected .*; found manin. Did you mean main",
        text="org/own@manin",
    ),
    "no such revision": Refusal("found zzz. Leave @zzz away to take the branch main", text="org/own@zzz"),
    "forbidden": Refusal(
        "the Hub refuses access; found 403 Forbidden. Ask for access at", fault={"status": 403, "times": 1}
    ),
    "file gone": Refusal(
        r"org/own/config\.json: the repository has no such file",
        fault={"status": 404, "times": 1, "headers": {"X-Error-Code": "EntryNotFound"}},
        path=CONFIG,
    ),
    "bad request": Refusal("the Hub refused the request; found 400 Bad Request", fault={"status": 400, "times": 1}),
    "wait too long": Refusal(
        r"the Hub gets too many requests from here; found 429 .*Wait 3600 seconds and run the same command again\.",
        fault={"status": 429, "times": 1, "headers": {"Retry-After": "3600"}},
    ),
    "wait too long, no token": Refusal(
        "Wait 3600 seconds and run the same command again; with a token .* more is allowed",
        token=None,
        fault={"status": 429, "times": 1, "headers": {"Retry-After": "3600"}},
    ),
    "always too many": Refusal("429 .*Wait some minutes", fault={"status": 429, "times": 9}),
    "always failing": Refusal(
        "the Hub failed 5 times; found 503 Service Unavailable. Run the same command again later; what was downl",
        fault={"status": 503, "times": 9},
    ),
    "a file always failing": Refusal(
        r"org/own/config\.json: the Hub failed 5 times; found 500", fault={"status": 500, "times": 9}, path=CONFIG
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_is_explained_with_the_next_step(
    case: str, own: Repository, server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = REFUSALS[case]
    for name, value in refusal.repository.items():
        setattr(own, name, value)
    if refusal.fault:
        server.fail(refusal.path, **refusal.fault)
    with pytest.raises(HubError, match=refusal.message):
        fetch(replace(hub, token=refusal.token or False), refusal.text)


def test_token_with_access_reads_a_gated_repository(own: Repository, hub: Hub) -> None:
    own.token, own.is_gated = "secret", True
    assert (fetch(hub) / "config.json").is_file()


# --- tried again ---


@pytest.mark.parametrize("path", [LIST, CONFIG], ids=["list", "file"])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_failure_that_passes_is_tried_again(
    status: int, path: str, own: Repository, server: HubServer, hub: Hub, waits: list[float]
) -> None:
    server.fail(path, status=status, times=2)
    assert (fetch(hub) / "config.json").read_bytes() == (own.directory / "config.json").read_bytes()
    assert waits == [1.0, 2.0]
    assert len([asked for asked in server.requests if asked.path.endswith(path)]) == 3


def test_server_that_says_how_long_to_wait_is_waited_for(
    own: Repository, server: HubServer, hub: Hub, waits: list[float]
) -> None:
    server.fail(LIST, status=429, headers={"Retry-After": "7"})
    fetch(hub)
    assert waits == [8.0]


def test_failures_are_tried_five_times_with_growing_pauses(
    own: Repository, server: HubServer, hub: Hub, waits: list[float]
) -> None:
    server.fail(LIST, status=503, times=99)
    with pytest.raises(HubError):
        fetch(hub)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert len(server.requests) == 5


def test_cdn_that_fails_for_a_moment_is_tried_again(
    own: Repository, server: HubServer, hub: Hub, waits: list[float]
) -> None:
    server.fail(own.sha256("tokenizer.json"), by_cdn=True, status=502)
    fetch(hub)
    assert waits == [1.0]


# --- not reached ---


@pytest.fixture
def nobody(hub: Hub) -> Hub:
    """A Hub at a port where nobody listens, with the cache of `hub`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return replace(hub, endpoint=f"http://127.0.0.1:{free.getsockname()[1]}")


def test_hub_that_is_not_there_is_said(nobody: Hub, waits: list[float]) -> None:
    message = (
        r"http://127.*: the Hub cannot be reached \(tried 5 times\); found ConnectError: .*HTTPS_PROXY.*HF_ENDPOINT"
    )
    with pytest.raises(HubError, match=message):
        fetch(nobody)
    assert waits == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("need", [Need.WEIGHTS, Need.PLAN, Need.HEADERS, Need.TOKENIZER])
def test_hub_that_is_not_there_is_not_needed_for_what_the_cache_holds(
    need: Need, own: Repository, hub: Hub, nobody: Hub
) -> None:
    here = fetch(hub)
    with resolved("org/own", need, hub=nobody) as source:
        assert source.path == here
        assert "is taken from the cache" in source.notes[0]
        assert "not compared with the Hub, which cannot be reached" in source.notes[0]


def remove_shard(cache: Path) -> None:
    next(cache.rglob("model-00001-of-00003.safetensors")).unlink()


def remove_revision(cache: Path) -> None:
    (cache / "models--org--own" / "refs" / "main").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_shard, "found 1 of 4 files that the index names are missing"),
        (remove_revision, "found nothing of that revision"),
    ],
)
def test_offline_what_is_not_in_the_cache_is_said(
    damage: Callable[[Path], None], message: str, own: Repository, server: HubServer, hub: Hub
) -> None:
    fetch(hub)
    damage(hub.cache)
    server.requests.clear()
    with pytest.raises(
        HubError, match=f"org/own: it is not in the cache, and HF_HUB_OFFLINE .*{message}.* Unset HF_HUB"
    ):
        fetch(replace(hub, is_offline=True))
    assert not server.requests


@pytest.mark.parametrize("text", ["org/own", f"org/own@{COMMIT}"])
def test_offline_the_cache_is_used_without_a_request(text: str, own: Repository, server: HubServer, hub: Hub) -> None:
    here = fetch(hub)
    server.requests.clear()
    assert fetch(replace(hub, is_offline=True), text) == here
    assert not server.requests
