"""What models are compared: the tiny checkpoint, a copy of it whose floats are all a little off, its conversions."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_reference import disturbed
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint


@pytest.fixture(scope="session")
def a(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)


@pytest.fixture(scope="session")
def b(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(disturbed(tiny, tmp_path_factory.mktemp("disturbed") / "tiny", 0.02))


@pytest.fixture(scope="session")
def ways(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """Conversions of `tiny`, each made once; to be read only."""
    return Ways(tiny, tmp_path_factory.mktemp("ways"))
