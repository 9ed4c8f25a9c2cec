"""The same bytes and the same digests whatever the slabs, the threads, and the code that does the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_convert.convert import plan as plan_module
from gptoss_convert.convert import workers
from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.formats import digest
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.files import PORTABLE_VARIABLE

# Leaves of tiny tensors, so that the tiny model has many and slabs can differ.
LEAF_BYTES = 4096
TYPES = [("auto", "mxfp4"), ("f16", "f32")]

Result = tuple[bytes, dict[str, str], dict[str, str], dict[str, int]]


def convert(source: Path, out: Path, types: tuple[str, str]) -> Result:
    """The written bytes, both kinds of digests and the rounded values of a proven conversion."""
    manifest = run(plan(open_checkpoint(source), GgufTarget(out, *types)))
    content = out.read_bytes()
    out.unlink()
    return content, manifest.digests, manifest.rounded_digests, manifest.rounded


@pytest.fixture(params=TYPES, ids="-".join)
def types(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Encodings of the matrices outside the experts, and of the experts."""
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
def expected(tiny: Path, tmp_path: Path, types: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Result:
    """What one thread makes of slabs as large as tensors."""
    monkeypatch.setattr(digest, "LEAF_BYTES", LEAF_BYTES)
    monkeypatch.setattr(workers, "n_workers", lambda _slab_bytes: 1)
    return convert(tiny, tmp_path / "expected.gguf", types)


@pytest.mark.parametrize("n_workers", [1, 2, 7])
@pytest.mark.parametrize("slab_bytes", [1, 10_000, 100_000])
def test_result_does_not_depend_on_slabs_or_threads(
    slab_bytes: int,
    n_workers: int,
    tiny: Path,
    tmp_path: Path,
    types: tuple[str, str],
    expected: Result,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_module, "SLAB_BYTES", slab_bytes)
    monkeypatch.setattr(workers, "n_workers", lambda _slab_bytes: n_workers)
    assert convert(tiny, tmp_path / "tiny.gguf", types) == expected


def test_slabs_of_this_test_cut_tensors_in_many(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "LEAF_BYTES", LEAF_BYTES)
    monkeypatch.setattr(plan_module, "SLAB_BYTES", 1)
    groups = plan(open_checkpoint(tiny), GgufTarget(tmp_path / "tiny.gguf")).groups
    assert max(len(list(group.slabs())) for group in groups) > 30


@pytest.mark.parametrize("variable", [NO_NUMBA_VARIABLE, PORTABLE_VARIABLE])
def test_result_does_not_depend_on_numba_or_the_systems_calls(
    variable: str,
    tiny: Path,
    tmp_path: Path,
    types: tuple[str, str],
    expected: Result,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, "1")
    assert convert(tiny, tmp_path / "tiny.gguf", types) == expected


@pytest.mark.parametrize("types", TYPES, ids="-".join)
def test_unproven_result_is_the_same(tiny: Path, tmp_path: Path, types: tuple[str, str]) -> None:
    proven, unproven = tmp_path / "proven.gguf", tmp_path / "unproven.gguf"
    for out, prove in ((proven, True), (unproven, False)):
        run(plan(open_checkpoint(tiny), GgufTarget(out, *types)), prove=prove)
    assert proven.read_bytes() == unproven.read_bytes()


def test_demo_is_the_same_for_a_seed_whatever_the_slabs_and_threads(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "SLAB_BYTES", 1)
    monkeypatch.setattr(workers, "n_workers", lambda _slab_bytes: 3)
    again, other = tmp_path / "again", tmp_path / "other"
    run(plan_demo(again))
    run(plan_demo(other, seed=1))
    contents = [{path.name: path.read_bytes() for path in sorted(made.iterdir())} for made in (tiny, again, other)]
    assert contents[0] == contents[1]
    different = {name for name in contents[0] if contents[0][name] != contents[2][name]}
    assert different == {name for name in contents[0] if name.endswith(".safetensors")}
