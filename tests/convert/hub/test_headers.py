"""Headers by range: what is said of a checkpoint on the Hub is what is said of its files, for a few bytes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, Repository

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.hub import headers
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.hub.source import opened, resolved
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.report import describe, describe_plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.convert.targets.mlx import MlxTarget
from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.errors import CheckpointError, GptOssConvertError

# id -> where its files are
SOURCES = {
    "org/full": "full",
    "org/full/original": "full/original",
    "org/full/metal": "full/metal/model.bin",
    "org/one": "one/tiny.gguf",
    "org/split": "split/tiny-00001-of-00003.gguf",
}


def without_origin(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what may differ: the path, and the note on what was fetched."""
    notes = [note for note in report["notes"] if not note.startswith("Only headers were read")]
    return {key: value for key, value in report.items() if key not in ("path", "source")} | {"notes": notes}


@pytest.mark.parametrize("text", SOURCES)
def test_report_of_a_repository_is_that_of_its_files(text: str, repositories: dict[str, Path], hub: Hub) -> None:
    files = next(iter(repositories.values())).parent / SOURCES[text]
    with opened(text, Need.HEADERS, hub=hub) as found:
        said = describe(found.checkpoint, tensors=True)
    assert without_origin(said) == without_origin(describe(open_checkpoint(files), tensors=True))
    assert said["path"].startswith(text)


@pytest.mark.parametrize("text", SOURCES)
@pytest.mark.parametrize("first", [256, 1024])
def test_headers_longer_than_the_first_request_are_read(
    text: str, first: int, server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "STEPS", (first, 50_000, 400_000, 64 << 20))
    with opened(text, Need.HEADERS, hub=hub) as found:
        assert found.checkpoint.account() > 3_000_000
    weights = [asked for asked in server.downloads() if asked.path.endswith((".safetensors", ".gguf", ".bin"))]
    assert max(asked.n_bytes for asked in server.requests) < 400_000
    assert len(weights) > len({asked.path for asked in weights})


@pytest.mark.parametrize("target", ["gguf", "mlx"])
@pytest.mark.parametrize("text", SOURCES)
def test_dry_run_of_a_repository_plans_what_its_files_give(
    text: str, target: str, repositories: dict[str, Path], hub: Hub, server: HubServer, tmp_path: Path
) -> None:
    files = next(iter(repositories.values())).parent / SOURCES[text]
    to = GgufTarget(tmp_path / "out.gguf") if target == "gguf" else MlxTarget(tmp_path / "out")
    pad = "metal" in text
    with opened(text, Need.PLAN, hub=hub, pad_vocab=pad) as found:
        planned = describe_plan(plan(found.checkpoint, to))
    checkpoint = open_checkpoint(files, pad_vocab=pad)
    named = replace(checkpoint, model_name=checkpoint.model_name or "org/full")
    local = describe_plan(plan(named, to))
    assert without_origin(planned) == without_origin(local)
    assert planned["source"]["path"].startswith(text)
    assert server.served() < 600_000


@pytest.mark.parametrize("text", ["org/full", "org/full/original", "org/one"])
def test_dry_run_predicts_what_the_conversion_writes_to_the_byte(text: str, hub: Hub, tmp_path: Path) -> None:
    target = GgufTarget(tmp_path / "out.gguf")
    with opened(text, Need.PLAN, hub=hub) as found:
        predicted = plan(found.checkpoint, target).sizes
    with opened(text, Need.WEIGHTS, hub=hub) as found:
        run(plan(found.checkpoint, target))
    written = read_gguf(tmp_path / "out.gguf")
    assert predicted == [(tmp_path / "out.gguf", written.file_bytes)]
    assert written.kv["general.name"].value == {"org/one": "tiny"}.get(text, "org/full")


def test_header_of_a_true_shape_costs_a_few_bytes(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    files = tmp_path / "shape"
    run(plan_demo(files, "20b", 1, sparse=True), prove=False)
    server.repositories["org/shape"] = Repository(files, hashes={"model-00000-of-00000.safetensors": "a" * 64})
    with opened("org/shape", Need.HEADERS, hub=hub) as found:
        assert found.checkpoint.n_bytes > 2_700_000_000
        assert found.origin is not None
        assert found.origin.fetched_bytes < 100_000
        # One for the list, one for each of seven files.
        assert found.origin.n_requests == 8


def test_only_named_files_are_asked_for(server: HubServer, hub: Hub) -> None:
    with resolved("org/full", Need.HEADERS, hub=hub):
        pass
    asked = {request.path for request in server.downloads()}
    assert not [path for path in asked if "original" in path or "metal" in path or "README" in path]
    assert not [path for path in asked if path.endswith("tokenizer.json")]


def test_what_was_fetched_is_counted_and_said(server: HubServer, hub: Hub) -> None:
    with opened("org/full", Need.HEADERS, hub=hub) as found:
        origin, notes = found.origin, found.checkpoint.notes
    assert origin is not None
    assert origin.fetched_bytes == server.served()
    assert origin.n_requests == len([asked for asked in server.requests if not asked.by_cdn])
    assert f"in {origin.n_requests} requests." in notes[0]
    assert origin.fields()["repository"] == "org/full"


def test_nothing_is_left_behind(hub: Hub) -> None:
    with resolved("org/full", Need.HEADERS, hub=hub) as source:
        assert source.path.is_dir()
    assert not source.path.exists()
    assert not hub.cache.exists()


def test_weights_are_refused_where_only_headers_are(hub: Hub) -> None:
    with (
        opened("org/one", Need.HEADERS, hub=hub) as found,
        pytest.raises(CheckpointError, match=r"org/one/tiny\.gguf: only the headers were fetched"),
    ):
        found.checkpoint.make_reader()


@pytest.mark.parametrize("name", ["tiny.gguf", "metal/model.bin", "model-00000-of-00003.safetensors"])
def test_damaged_header_is_refused_under_the_name_of_the_repository(name: str, own: Repository, hub: Hub) -> None:
    magic = {"tiny.gguf": b"GGUF", "metal/model.bin": b"GPT-OSS v1.0"}.get(name, b"\x40\0\0\0\0\0\0\0{")
    if not name.endswith(".safetensors"):
        for path in own.directory.glob("*.safetensors*"):
            path.unlink()
    (own.directory / name).parent.mkdir(exist_ok=True)
    (own.directory / name).write_bytes(magic + b"\xff" * 100_000)
    text = "org/own" if name != "metal/model.bin" else "org/own/metal"
    with pytest.raises(GptOssConvertError) as caught, opened(text, Need.HEADERS, hub=hub):
        pass
    assert caught.value.file == f"org/own/{name}"
    assert "gptoss-convert-" not in str(caught.value)


def test_small_file_that_was_changed_on_the_way_is_refused(own: Repository, hub: Hub) -> None:
    own.git_hashes["config.json"] = "1" * 40
    with pytest.raises(GptOssConvertError, match=r"org/own/config\.json: .*git's SHA-1 differs; expected 1{40}"):  # noqa: SIM117
        with resolved("org/own", Need.HEADERS, hub=hub):
            pass


def test_what_is_whole_in_the_cache_is_not_fetched(server: HubServer, hub: Hub) -> None:
    with resolved("org/full", Need.WEIGHTS, hub=hub):
        server.requests.clear()
    with opened("org/full", Need.HEADERS, hub=hub) as found:
        assert found.checkpoint.layout == "hf"
    assert [asked.path for asked in server.requests] == ["/api/models/org/full/revision/main"]


def test_a_server_without_ranges_costs_more_and_gives_the_same(
    server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ignores_range = True
    monkeypatch.setattr(headers, "STEPS", (4096, 50_000, 400_000, 64 << 20))
    with opened("org/one", Need.HEADERS, hub=hub) as found:
        assert found.checkpoint.account() > 3_000_000
