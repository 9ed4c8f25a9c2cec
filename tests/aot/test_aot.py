"""Every kernel compiles for every architecture it is meant for, with no GPU at hand.

No spills, shared memory within the part's limit, and the part's own instructions. A few forms in the normal run, all of
them in the slow one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import aot
import pytest
from aot import ROOT, TARGETS, Result

from gptoss_convert.kernels.ladder import TRITON

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux only")

PAGE = ROOT / "docs" / "hardware.md"
SOUND = Result("GEMM", "sm_90", registers=90, shared=1024, instructions=("wgmma",), dots=(("bf16", 64),))


def faults_of(results: list[Result]) -> dict[str, list[str]]:
    """Faults by kernel. Other Tritons may spill, or turn codes into floats by arithmetic, as the page says."""
    found = {result.kernel: result.faults() for result in results}
    if version("triton") != TRITON:
        found = {
            name: [one for one in faults if not one.startswith(("converts by", "spills"))]
            for name, faults in found.items()
        }
    return {name: faults for name, faults in found.items() if faults}


@pytest.fixture(scope="module")
def sampled() -> list[Result]:
    return aot.compile_all(aot.sample())


@pytest.mark.parametrize("target", TARGETS)
def test_a_sample_of_kernels_compiles_and_fits(sampled: list[Result], target: str) -> None:
    found = [result for result in sampled if result.target == target]
    assert len(found) >= 4
    assert faults_of(found) == {}


def test_the_sample_has_every_row_of_the_matrix(sampled: list[Result]) -> None:
    assert {aot.row_of(result.kernel) for result in sampled} == {aot.row_of(name) for name, _ in aot.catalogue()}


def test_the_targets_are_those_of_the_catalogue() -> None:
    from gptoss_convert.kernels import catalogue

    assert set(TARGETS) == set(catalogue.TARGETS)
    nvidia = {f"sm_{number}" for number in (75, 80, 86, 89, 90, 100, 120)}
    assert set(TARGETS) == nvidia | {"gfx942", "gfx950", "gfx1100", "gfx1201"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_and_fits_and_the_page_says_so(target: str) -> None:
    names = [name for name, targets in aot.catalogue() if target in targets]
    half = len(names) // 2
    results = aot.compile_all([(target, names[:half]), (target, names[half:])])
    assert faults_of(results) == {}
    assert [result.kernel for result in results] == names
    if f"triton {version('triton')}" in PAGE.read_text(encoding="utf-8"):
        assert column(target) == [line.split(" | ")[1].removesuffix(" |") for line in aot.matrix(results, [target])[2:]]


def column(target: str) -> list[str]:
    """What the page's matrix says of a target."""
    page = PAGE.read_text(encoding="utf-8")
    head = aot.matrix([])[0]
    rows = page[page.index(head) :].partition("\n\n")[0].splitlines()[2:]
    return [row.strip("|").split("|")[1 + TARGETS.index(target)].strip() for row in rows]


def test_the_page_has_a_row_for_every_kernel_a_column_for_every_target_and_no_fault() -> None:
    page = PAGE.read_text(encoding="utf-8")
    head = aot.matrix([])[0]
    rows = page[page.index(head) :].partition("\n\n")[0].splitlines()[2:]
    assert [row.strip("|").split("|")[0].strip() for row in rows] == aot.matrix_rows()
    assert "**" not in "".join(rows)
    wanted = {(aot.row_of(name), target) for name, targets in aot.catalogue() for target in targets}
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        assert {target for target, cell in zip(TARGETS, cells, strict=True) if cell} == {
            target for row_name, target in wanted if row_name == name
        }


# --- what would be noticed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"error": "CompilationError: at 7:3"}, "CompilationError: at 7:3"),
        ({"spills": 8}, "spills 8 bytes"),
        ({"shared": 232_449}, "takes 232,449 bytes of shared memory of 232,448"),
        ({"instructions": ()}, "its products became no instruction"),
        ({"instructions": ("v_mfma",)}, "its products became ('v_mfma',)"),
        ({"instructions": ("mma.sync",)}, "a product of 64 rows became ('mma.sync',), not wgmma"),
        ({"converts": True, "dots": (("scaled", 64),)}, "converts by instruction: True, against the ladder"),
        ({"target": "sm_100", "instructions": ("tcgen05.mma",), "dots": (("scaled", 64),)}, "instruction: False"),
        ({"target": "sm_75"}, "uses ('wgmma',), and there are none on sm_75"),
    ],
)
def test_what_is_wrong_is_a_fault(change: dict[str, object], fault: str) -> None:
    assert SOUND.faults() == []
    found = replace(SOUND, **change).faults()
    assert len(found) == 1
    assert fault in found[0]


def test_products_in_float32_need_no_instruction() -> None:
    assert replace(SOUND, instructions=(), dots=(("f32", 64),)).faults() == []


def test_a_target_that_ends_the_compiler_is_reported_for_each_kernel(tmp_path: Path) -> None:
    names = [name for name, _ in aot.catalogue() if "scaled" in name][:2]
    results = aot.compile_kernels("sm_101", names, tmp_path)
    assert [result.kernel for result in results] == names
    assert all("the compiler died, exit code" in result.error for result in results)


@pytest.mark.parametrize("target", ["sm_10", "gfx000"])
def test_a_target_that_is_refused_is_reported(target: str, tmp_path: Path) -> None:
    name = aot.catalogue()[0][0]
    assert [bool(result.error) for result in aot.compile_kernels(target, [name], tmp_path)] == [True]


def test_the_interpreter_is_kept_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    results = aot.compile_kernels("sm_80", [aot.catalogue()[0][0]], tmp_path)
    assert [result.faults() for result in results] == [[]]
    assert results[0].registers > 0
