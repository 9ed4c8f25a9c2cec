"""Two layers of gpt-oss-20b in true shape, 3.2 GB: validated on the CPU in bounded memory, with progress."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_jobs import anonymous_bytes
from checkpoints import INDEX, patch
from command_line import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MAX_ANONYMOUS_BYTES = 3_000_000_000
BLOCKS = "model.layers.1.mlp.experts.down_proj_blocks"


@dataclass(frozen=True)
class Run:
    """What a run of the command said, and what it took."""

    out: str
    err: str
    peak_bytes: int


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("true-shape") / "hf"
    outcome = command("make-demo", directory, "--preset", "20b", "--layers", "2", "--quiet")
    assert outcome.code == 0, outcome.err
    yield directory
    shutil.rmtree(directory)


def byte_at(checkpoint: Path, tensor: str, offset: int) -> int:
    """A byte of a stored tensor, found without reading the rest."""
    path = checkpoint / json.loads((checkpoint / INDEX).read_bytes())["weight_map"][tensor]
    with path.open("rb") as file:
        (n_bytes,) = struct.unpack("<Q", file.read(8))
        begin = json.loads(file.read(n_bytes))[tensor]["data_offsets"][0]
        file.seek(8 + n_bytes + begin + offset)
        return file.read(1)[0]


@pytest.fixture(scope="module")
def run(checkpoint: Path) -> Run:
    script = Path(sys.executable).with_name("gptoss-convert")
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(
        [str(script), "validate", str(checkpoint), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, err
    print(f"\ntwo layers of 20b: {time.monotonic() - started:.0f} s, {peak / 1e9:.2f} GB\n{out}")
    return Run(out, err, peak)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's anonymous memory")
def test_memory_stays_below_3_gb(run: Run) -> None:
    assert 200_000_000 < run.peak_bytes < MAX_ANONYMOUS_BYTES


def test_true_shapes_are_valid_and_the_time_is_said(run: Run) -> None:
    assert re.search(r"valid: every stage agrees .*; \d+\.\d s$", run.out.strip())
    assert "all 2 layers, 256 tokens: Harmony-formatted text" in run.out


def test_progress_is_shown(run: Run) -> None:
    assert run.err.startswith("validating")
    assert re.search(r"validating done after \d+\.\d s", run.err)


def test_one_flipped_bit_is_found_in_true_shape(checkpoint: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    offset = ((17 * 2880 + 1234) * 90 + 56) * 16 + 3
    patch(damaged, BLOCKS, offset, bytes([byte_at(checkpoint, BLOCKS, offset) ^ 2]))
    outcome = command("validate", checkpoint, damaged, "--layers", "1", "--device", "cpu", "--json")
    shutil.rmtree(damaged)
    assert outcome.code == 1
    found = outcome.json["layers"][0]["stages"]["down"]["cause"]["difference"]
    assert (found["expert"], found["row"], found["block"]) == (17, 1234, 56)
