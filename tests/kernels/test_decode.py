"""The decode kernels give every code times every scale exactly, from both stored forms.

Without a GPU they run through Triton's interpreter, which must be chosen before Triton is imported, hence a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "check_decode_kernels.py"


def run_script(device: str, **variables: str) -> str:
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, str(SCRIPT), device], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux only")
def test_value_identical_in_the_interpreter() -> None:
    assert "value-identical: 4096 codes and scales, 2 stored forms" in run_script("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_value_identical_on_the_gpu() -> None:
    assert "value-identical: 4096 codes and scales, 2 stored forms" in run_script("cuda", TRITON_INTERPRET="0")
