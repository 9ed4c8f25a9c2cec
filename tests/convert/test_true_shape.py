"""Two layers of gpt-oss-20b in true shape, 3.2 GB: the conversion in bounded memory, and llama.cpp on what it wrote."""

from __future__ import annotations

import filecmp
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_jobs import anonymous_bytes
from command_line import command
from llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow

MAX_ANONYMOUS_BYTES = 400_000_000
MOST_ANONYMOUS_BYTES = 600_000_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("true-shape")
    outcome = command("make-demo", directory / "hf", "--preset", "20b", "--layers", "2", "--quiet")
    assert outcome.code == 0, outcome.err
    yield directory / "hf"
    shutil.rmtree(directory)


def peak_bytes(arguments: list[str]) -> int:
    """Runs a command to its good end and returns the peak of its anonymous memory."""
    script = Path(sys.executable).with_name("gptoss-convert")
    process = subprocess.Popen([str(script), *arguments], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.01)
    assert process.returncode == 0
    return peak


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's anonymous memory")
@pytest.mark.parametrize("options", [[], ["--no-verify"], ["--experts", "f32", "--type", "f32"]], ids=" ".join)
def test_conversion_stays_below_400_mb(options: list[str], checkpoint: Path) -> None:
    out = checkpoint.with_name("out.gguf")
    peak = peak_bytes(["to-gguf", str(checkpoint), str(out), "--quiet", "--force", *options])
    out.unlink()
    assert 50_000_000 < peak < MAX_ANONYMOUS_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's anonymous memory")
@pytest.mark.parametrize("job", [["to-mxfp4", "--layout", "original"], ["to-mlx"], ["to-metal"]], ids=" ".join)
def test_every_repack_stays_below_600_mb(job: list[str], checkpoint: Path) -> None:
    out = checkpoint.with_name("out")
    peak = peak_bytes([job[0], str(checkpoint), str(out), "--quiet", *job[1:]])
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    assert 50_000_000 < peak < MOST_ANONYMOUS_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's anonymous memory")
def test_the_way_to_bf16_and_back_stays_below_600_mb_and_gives_the_same_bytes(checkpoint: Path) -> None:
    dense, back = checkpoint.with_name("dense"), checkpoint.with_name("back")
    assert 50_000_000 < peak_bytes(["to-bf16", str(checkpoint), str(dense), "--quiet"]) < MOST_ANONYMOUS_BYTES
    arguments = ["to-mxfp4", str(dense), str(back), "--quiet", "--like", str(checkpoint)]
    assert 50_000_000 < peak_bytes(arguments) < MOST_ANONYMOUS_BYTES
    shutil.rmtree(dense)
    for path in checkpoint.glob("*.safetensors"):
        assert filecmp.cmp(path, back / path.name, shallow=False), path.name
    shutil.rmtree(back)


def test_llama_cpp_runs_the_true_shape(checkpoint: Path) -> None:
    out = checkpoint.with_name("run.gguf")
    outcome = command("to-gguf", checkpoint, out, "--json")
    assert outcome.json["verified"] is True
    with LlamaCpp(out) as model:
        best, *others = model.next_tokens([200_006, 1428, 200_008, *range(1000, 1160)], 10)
    out.unlink()
    assert all(math.isfinite(candidate.log_prob) for candidate in (best, *others))
    assert best.log_prob > others[-1].log_prob
