"""`make bench-gpu` runs, as far as can be known without a GPU: every row of its tables, tiny, in the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "bench_gpu.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux only")


@pytest.fixture(scope="module")
def dry() -> list[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--dry"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "name", ["MXFP4", "GGML_MXFP4", "GGML_MXFP4 in planes", "Q8_0", "Q8_0 in planes", "BF16", "torch, BF16"]
)
def test_every_row_is_measured_and_right(name: str, dry: list[str]) -> None:
    (row,) = (line for line in dry if line.startswith(f"| {name} |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 4
    assert cells[1] == ("beside" if name == "torch, BF16" else "triton interpreter")
    assert cells[2].endswith("%")
    assert " ms, " in cells[3]


def test_a_peer_that_is_not_there_is_said_to_be_missing(dry: list[str]) -> None:
    (row,) = (line for line in dry if line.startswith("| triton_kernels |"))
    assert "not measured: No module named 'triton_kernels'" in row


def test_it_is_said_that_the_figures_mean_nothing(dry: list[str]) -> None:
    assert "A dry run in Triton's interpreter: no figure here means anything." in dry


def test_without_a_gpu_nothing_is_measured() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("There is no GPU here")
