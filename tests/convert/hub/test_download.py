"""Downloads: only what is needed, byte-identical, resumed, checked, and once."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, Repository
from huggingface_hub import hf_hub_download, try_to_load_from_cache

from gptoss_convert.convert.hub import download
from gptoss_convert.convert.hub import server as server_module
from gptoss_convert.convert.hub.cache import Cache
from gptoss_convert.convert.hub.errors import HubError
from gptoss_convert.convert.hub.ids import HubId
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.hub.source import Source, brought, opened
from gptoss_convert.convert.progress import Progress

SHARD = "model-00000-of-00003.safetensors"
SHARDS = {f"model-0000{number}-of-00003.safetensors" for number in range(4)}
SMALL = {
    "LICENSE",
    "USAGE_POLICY",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
INDEX = "model.safetensors.index.json"


def fetch(text: str, hub: Hub, need: Need = Need.WEIGHTS, progress: Progress | None = None) -> Source:
    return brought(text, progress, need, hub)


def names_in(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def snapshot(hub: Hub, repository: str) -> Path:
    return Cache.of(hub.cache, HubId(repository)).snapshot(COMMIT)


def leave_part(hub: Hub, own: Repository, content: bytes) -> None:
    """What a process that was ended in the middle of SHARD leaves."""
    path = Cache.of(hub.cache, HubId("org/own")).partial(own.sha256(SHARD))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


# --- what is downloaded ---

FILES = {
    ("org/full", Need.WEIGHTS): {*SMALL, *SHARDS, INDEX},
    ("org/full", Need.TOKENIZER): SMALL,
    ("org/full/original", Need.WEIGHTS): {*SMALL, "original/config.json", "original/model.safetensors"},
    ("org/full/metal", Need.WEIGHTS): {"metal/model.bin"},
    ("org/one", Need.WEIGHTS): {"tiny.gguf"},
    ("org/split", Need.WEIGHTS): {f"tiny-0000{number}-of-00003.gguf" for number in (1, 2, 3)},
}


@pytest.mark.parametrize(("text", "need"), FILES, ids=lambda value: getattr(value, "value", value))
def test_files_that_are_needed_are_byte_identical_and_no_other_is_asked_for(
    text: str, need: Need, server: HubServer, hub: Hub
) -> None:
    fetch(text, hub, need)
    repository = "/".join(text.split("/")[:2])
    directory, remote = snapshot(hub, repository), server.repositories[repository].directory
    assert names_in(directory) == FILES[text, need]
    assert all((directory / name).read_bytes() == (remote / name).read_bytes() for name in FILES[text, need])
    asked = {request.path.partition(f"/resolve/{COMMIT}/")[2] for request in server.downloads()}
    assert asked == FILES[text, need]


@pytest.mark.parametrize("text", ["org/full", "org/full/original", "org/one", "org/split"])
def test_downloaded_checkpoint_opens(text: str, hub: Hub) -> None:
    with opened(text, Need.WEIGHTS, hub=hub) as found:
        assert found.checkpoint.account() > 3_000_000
        assert found.checkpoint.tokenizer is not None
        assert found.origin is not None
        assert f"{text} at {COMMIT[:7]} of the Hub: " in found.checkpoint.notes[0]


def test_tokenizer_of_another_repository_is_used(hub: Hub) -> None:
    with opened("org/one", Need.WEIGHTS, hub=hub, tokenizer="org/full") as found:
        assert found.checkpoint.tokenizer_directory == snapshot(hub, "org/full")


def test_what_was_checked_is_said(hub: Hub) -> None:
    notes = fetch("org/full", hub).notes
    assert notes[0].startswith(f"org/full at {COMMIT[:7]} of the Hub: 13 files, 3.16 MB, SHA-256 as published")
    assert "(8 small ones by git's SHA-1); 3.1" in notes[0]


# --- once ---


def test_second_use_costs_one_request(server: HubServer, hub: Hub) -> None:
    fetch("org/full", hub)
    server.requests.clear()
    assert fetch("org/full", hub).notes[0].endswith("nothing downloaded.")
    assert [asked.path for asked in server.requests] == ["/api/models/org/full/revision/main"]


def test_a_commit_is_a_revision_too(server: HubServer, hub: Hub) -> None:
    fetch(f"org/full@{COMMIT}", hub)
    assert server.requests[0].path.endswith(f"/revision/{COMMIT}")
    assert names_in(snapshot(hub, "org/full")) == {*SMALL, *SHARDS, INDEX}


def test_content_that_another_revision_brought_is_not_downloaded_again(
    own: Repository, server: HubServer, hub: Hub
) -> None:
    fetch("org/own", hub)
    own.commit = "f" * 40
    (own.directory / "chat_template.jinja").write_text("Another.", encoding="utf-8")
    server.requests.clear()
    source = fetch("org/own", hub)
    assert source.path.name == "f" * 40
    assert [asked.path.rpartition("/")[2] for asked in server.downloads()] == ["chat_template.jinja"]


def test_huggingface_hub_finds_what_was_downloaded(hub: Hub) -> None:
    fetch("org/full", hub)
    for name in (SHARD, "config.json"):
        found = try_to_load_from_cache("org/full", name, cache_dir=hub.cache, revision="main")
        assert Path(str(found)) == snapshot(hub, "org/full") / name
        assert hf_hub_download("org/full", name, cache_dir=hub.cache, local_files_only=True) == found


def test_what_huggingface_hub_downloaded_is_used(server: HubServer, hub: Hub) -> None:
    for name in (SHARD, "config.json"):
        hf_hub_download("org/full", name, cache_dir=hub.cache, endpoint=hub.endpoint, token="secret")
    server.requests.clear()
    fetch("org/full", hub)
    asked = {request.path.rpartition("/")[2] for request in server.downloads()}
    assert asked == {*SMALL, *SHARDS, INDEX} - {SHARD, "config.json"}


def test_files_are_copied_where_links_cannot_be_made(
    own: Repository, server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **keywords: object) -> None:
        raise OSError("a privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    fetch("org/own", hub)
    directory = snapshot(hub, "org/own")
    assert not any(path.is_symlink() for path in directory.iterdir())
    assert all((directory / name).read_bytes() == (own.directory / name).read_bytes() for name in names_in(directory))
    server.requests.clear()
    fetch("org/own", hub)
    assert not server.downloads()


# --- resumed ---


def ranges_of(server: HubServer, name: str) -> list[str | None]:
    return [asked.range for asked in server.downloads(name)]


def test_cut_connection_goes_on_where_it_ended(
    own: Repository, server: HubServer, hub: Hub, waits: list[float]
) -> None:
    size, piece = (own.directory / SHARD).stat().st_size, server_module.CHUNK_BYTES
    server.fail(own.sha256(SHARD), by_cdn=True, cut_after=2 * piece + 1000)
    fetch("org/own", hub)
    assert ranges_of(server, SHARD) == [f"bytes=0-{size - 1}", f"bytes={2 * piece}-{size - 1}"]
    assert waits == [1.0]
    assert (snapshot(hub, "org/own") / SHARD).read_bytes() == (own.directory / SHARD).read_bytes()


def test_connection_that_is_cut_again_and_again_gets_there(
    own: Repository, server: HubServer, hub: Hub, waits: list[float]
) -> None:
    server.fail(own.sha256(SHARD), by_cdn=True, cut_after=server_module.CHUNK_BYTES + 10, times=3)
    fetch("org/own", hub)
    assert len(ranges_of(server, SHARD)) == 4
    assert waits == [1.0, 1.0, 1.0], "what was got starts the count anew"


class Interrupted(Progress):
    """Ctrl-C after some bytes."""

    def __init__(self, after: int) -> None:
        self._left = after

    def advance(self, n_bytes: int, tensor: str) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise KeyboardInterrupt


def test_interrupted_download_goes_on_with_the_rest(own: Repository, server: HubServer, hub: Hub) -> None:
    total = sum((own.directory / name).stat().st_size for name in own.names())
    with pytest.raises(KeyboardInterrupt):
        fetch("org/own", hub, progress=Interrupted(total // 2))
    server.requests.clear()
    source = fetch("org/own", hub)
    assert "were here from before" in source.notes[0]
    assert server.served() < total - 200_000
    assert all((source.path / name).read_bytes() == (own.directory / name).read_bytes() for name in own.names())


def test_what_an_ended_process_left_is_used(own: Repository, server: HubServer, hub: Hub) -> None:
    content = (own.directory / SHARD).read_bytes()
    leave_part(hub, own, content[:700_001])
    fetch("org/own", hub)
    assert ranges_of(server, SHARD) == [f"bytes=700001-{len(content) - 1}"]
    assert (snapshot(hub, "org/own") / SHARD).read_bytes() == content


@pytest.mark.parametrize("n_bytes", [1, 500_000, 5_000_000], ids=["short", "half", "too long"])
def test_what_is_left_of_another_content_is_not_trusted(
    n_bytes: int, own: Repository, server: HubServer, hub: Hub
) -> None:
    leave_part(hub, own, b"x" * n_bytes)
    fetch("org/own", hub)
    assert (snapshot(hub, "org/own") / SHARD).read_bytes() == (own.directory / SHARD).read_bytes()


def test_server_without_ranges_is_resumed_correctly(own: Repository, server: HubServer, hub: Hub) -> None:
    content = (own.directory / SHARD).read_bytes()
    leave_part(hub, own, content[:400_000])
    server.ignores_range = True
    fetch("org/own", hub)
    assert (snapshot(hub, "org/own") / SHARD).read_bytes() == content


def test_long_file_is_asked_for_in_parts(
    own: Repository, server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_RESPONSE_BYTES", 600_000)
    fetch("org/own", hub)
    size = (own.directory / SHARD).stat().st_size
    assert ranges_of(server, SHARD) == ["bytes=0-599999", f"bytes=600000-{size - 1}"]
    assert (snapshot(hub, "org/own") / SHARD).read_bytes() == (own.directory / SHARD).read_bytes()


def test_two_at_once_download_each_file_once(own: Repository, server: HubServer, hub: Hub) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: fetch("org/own", hub).path, range(2))
    assert first == second
    asked = [request.path for request in server.downloads(".safetensors")]
    assert len(asked) == len(set(asked)) == 4
    assert not list(hub.cache.rglob("*.lock"))


# --- checked ---


def test_large_file_with_another_sha256_gets_no_name(own: Repository, hub: Hub) -> None:
    true = own.sha256(SHARD)
    own.hashes[SHARD] = "a" * 64
    message = f"org/own/{SHARD}: the file is not the one .*its SHA-256 differs; expected a{{64}}; found {true}"
    with pytest.raises(HubError, match=message):
        fetch("org/own", hub)
    assert SHARD not in names_in(snapshot(hub, "org/own"))
    assert not list(hub.cache.rglob("a" * 64 + "*.incomplete"))


def test_small_file_with_another_git_hash_gets_no_name(own: Repository, hub: Hub) -> None:
    own.git_hashes["config.json"] = "b" * 40
    with pytest.raises(
        HubError, match=r"org/own/config\.json: .*git's SHA-1 differs; expected b{40}; found [0-9a-f]{40}"
    ):
        fetch("org/own", hub)
    assert "config.json" not in names_in(snapshot(hub, "org/own"))


def test_hashes_of_a_listing_without_them_come_from_each_file(own: Repository, server: HubServer, hub: Hub) -> None:
    own.has_blobs = False
    source = fetch("org/own", hub)
    assert "SHA-256 as published (6 small ones by git's SHA-1)" in source.notes[0]
    assert {asked.method for asked in server.requests} == {"GET", "HEAD"}
    own.hashes[SHARD] = "a" * 64
    with pytest.raises(HubError, match="SHA-256 differs"):
        fetch("org/own", Hub(hub.endpoint, hub.cache.with_name("other"), token="secret"))


def test_files_without_published_hashes_are_compared_by_size_and_that_is_said(own: Repository, hub: Hub) -> None:
    own.says_hashes = False
    assert "11 files, 3.16 MB, sizes as published, 0 of them with their hashes;" in fetch("org/own", hub).notes[0]


def run_remedy(error: HubError) -> None:
    """Does what the message says."""
    assert error.remedy is not None
    command = error.remedy.partition("again: ")[2]
    assert command.startswith("rm /")
    subprocess.run(shlex.split(command), check=True)


@pytest.mark.skipif(os.name == "nt", reason="the command is one of a POSIX shell")
@pytest.mark.parametrize("damage", ["a byte", "the size"])
def test_damaged_copy_of_another_program_is_refused_and_the_command_helps(
    damage: str, own: Repository, server: HubServer, hub: Hub
) -> None:
    hf_hub_download("org/own", SHARD, cache_dir=hub.cache, endpoint=hub.endpoint, token="secret")
    path = (snapshot(hub, "org/own") / SHARD).resolve()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\xff" if damage == "a byte" else content[:-1])
    with pytest.raises(HubError, match=f"org/own/{SHARD}: ") as caught:
        fetch("org/own", hub)
    run_remedy(caught.value)
    fetch("org/own", hub)
    assert (snapshot(hub, "org/own") / SHARD).read_bytes() == content


def test_hash_is_taken_again_only_of_a_file_that_was_written_to(own: Repository, hub: Hub) -> None:
    fetch("org/own", hub)
    path = (snapshot(hub, "org/own") / SHARD).resolve()
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetch("org/own", hub).path.is_dir(), "neither size nor time tell"
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    with pytest.raises(HubError, match="SHA-256 differs"):
        fetch("org/own", hub)


# --- the token, and the disk ---


def test_token_goes_to_the_hub_and_never_to_the_cdn(server: HubServer, hub: Hub) -> None:
    fetch("org/full", hub)
    assert {asked.token for asked in server.requests if not asked.by_cdn} == {"secret"}
    by_cdn = [asked for asked in server.requests if asked.by_cdn]
    assert len(by_cdn) == 5
    assert {asked.token for asked in by_cdn} == {None}


def test_disk_without_room_is_refused_before_the_download(
    server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "free_bytes", lambda path: 3_000_000)
    with pytest.raises(
        HubError, match=r"no room to download org/full; expected 3\.1\d MB free; found 3\.00 MB\. .* HF_HOME"
    ):
        fetch("org/full", hub)
    assert {asked.path.rpartition("/")[2] for asked in server.downloads()} <= {INDEX}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
def test_disk_that_fills_up_is_said(own: Repository, hub: Hub) -> None:
    path = Cache.of(hub.cache, HubId("org/own")).partial(own.sha256(SHARD))
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    with pytest.raises(
        HubError, match=r"no room to download org/own; .*No space left.* run the same command again to go on"
    ):
        fetch("org/own", hub)


def test_cache_that_is_no_directory_is_said(hub: Hub) -> None:
    hub.cache.write_text("a file", encoding="utf-8")
    with pytest.raises(
        HubError, match=r"the cache cannot be used: .* set HF_HOME to a directory that can be written to"
    ):
        fetch("org/full", hub)


@pytest.mark.parametrize("name", ["../outside.json", "a\\b.json", "/etc/x.json", "model-..\0.safetensors"])
def test_names_that_lead_out_of_the_cache_are_ignored(
    name: str, own: Repository, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Repository.listing

    def hostile(repository: Repository) -> dict[str, object]:
        content = listing(repository)
        content["siblings"].append({"rfilename": name, "size": 4, "blobId": "0" * 40})
        return content

    monkeypatch.setattr(Repository, "listing", hostile)
    fetch("org/own", hub)
    assert names_in(snapshot(hub, "org/own")) == set(own.names())
    assert [path.name for path in hub.cache.iterdir()] == ["models--org--own"]


def test_digest_of_a_server_never_becomes_a_path(own: Repository, hub: Hub) -> None:
    own.git_hashes["config.json"] = "../../../../evil"
    source = fetch("org/own", hub)
    assert (source.path / "config.json").read_bytes() == (own.directory / "config.json").read_bytes()
    assert not list(hub.cache.parent.rglob("*evil*"))
    name = hashlib.sha256(f"org/own/{COMMIT}/config.json".encode()).hexdigest()
    assert (hub.cache / "models--org--own" / "blobs" / name).is_file()
