"""Repositories on a Hub of our own: one as the official ones are, and some with GGUF files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Repository, hub_server

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.convert.targets.metal import MetalTarget


@pytest.fixture(scope="session")
def repositories(tiny: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories by name: `full` (as openai/gpt-oss-20b), `one` (a GGUF), `split` (one in parts), `many` (two)."""
    root = tmp_path_factory.mktemp("repositories")
    full, checkpoint = root / "full", open_checkpoint(tiny)
    shutil.copytree(tiny, full)
    for name in ("README.md", "LICENSE", "USAGE_POLICY", ".gitattributes"):
        (full / name).write_text(f"This is {name}.\n", encoding="utf-8")
    run(plan_demo(full / "original", layout="original"))
    (full / "original" / "dtypes.json").write_text("{}", encoding="utf-8")
    (full / "metal").mkdir()
    run(plan(checkpoint, MetalTarget(full / "metal" / "model.bin")))
    for name in ("one", "split", "many"):
        (root / name).mkdir()
    shutil.copy(tiny_gguf, root / "one" / "tiny.gguf")
    run(plan(checkpoint, GgufTarget(root / "split" / "tiny.gguf", split_max_bytes=1_200_000)))
    shutil.copy(tiny_gguf, root / "many" / "tiny-MXFP4.gguf")
    shutil.copytree(root / "split", root / "many" / "parts")
    return {name: root / name for name in ("full", "one", "split", "many")}


@pytest.fixture
def server(repositories: dict[str, Path]) -> Iterator[HubServer]:
    """The Hub, with the repositories as org/full and so on."""
    with hub_server(**repositories) as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    """The seconds that were waited for; no time passes."""
    return []


@pytest.fixture
def hub(server: HubServer, tmp_path: Path, waits: list[float]) -> Hub:
    """How the Hub is asked: with a token, and with a cache of this test's own."""
    return Hub(server.url, tmp_path / "cache", token="secret", wait=waits.append)


@pytest.fixture
def own(server: HubServer, tmp_path: Path, tiny: Path) -> Repository:
    """A repository org/own that a test may change."""
    server.repositories["org/own"] = Repository(Path(shutil.copytree(tiny, tmp_path / "own")))
    return server.repositories["org/own"]
