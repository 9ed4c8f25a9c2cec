"""What models are compared: the tiny checkpoint, and a copy of it whose floats are all a little off."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_reference import disturbed

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint


@pytest.fixture(scope="session")
def a(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)


@pytest.fixture(scope="session")
def b(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(disturbed(tiny, tmp_path_factory.mktemp("disturbed") / "tiny", 0.02))
