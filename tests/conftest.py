"""What several test files share: one small checkpoint and its GGUF, made once and never written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.gguf import GgufTarget


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the `tiny` demo checkpoint, to be read only."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    run(plan_demo(directory))
    return directory


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file that `to-gguf` makes of `tiny` when asked for nothing else, to be read only."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    run(plan(open_checkpoint(tiny), GgufTarget(path)))
    return path
