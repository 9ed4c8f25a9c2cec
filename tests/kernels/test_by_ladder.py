"""The MoE block goes the way that the ladder names, in the precision that it names."""

from __future__ import annotations

import pytest
from kernel_cases import LADDER_ARCHS, LADDER_ENCODINGS, LADDER_TOKENS
from kernel_figures import figures
from kernel_tolerances import BF16, F16, F32

from gptoss_convert.kernels.device import devices, parse_arch, path_for

TOLERANCES = {"float32": F32, "bfloat16": BF16, "float16": F16}


@pytest.fixture(params=[*LADDER_ARCHS, pytest.param("gpu", marks=pytest.mark.gpu)])
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def where(arch: str) -> str:
    return "cuda" if arch == "gpu" else "cpu"


@pytest.mark.parametrize("tokens", LADDER_TOKENS)
@pytest.mark.parametrize("encoding", LADDER_ENCODINGS)
def test_the_block_goes_the_ladders_way_within_its_precision(encoding: str, tokens: int, arch: str) -> None:
    found = figures(where(arch), "ladder")[f"{encoding}, {tokens} tokens, {arch}"]
    path = path_for(encoding, devices()[0] if arch == "gpu" else parse_arch(arch), tokens=tokens, top_k=3)
    assert (found["path"], found["dot"]) == (path.name, path.dot)
    assert found["error"] <= TOLERANCES[path.dot]


def test_float16_is_left_where_it_would_not_hold_a_scale() -> None:
    ladder = figures("cpu", "ladder")
    assert ladder["MXFP4, 20 tokens, sm_75"]["dot"] == "float16"
    found = ladder["scales that float16 cannot hold, sm_75"]
    assert (found["path"], found["dot"]) == ("triton gemv + torch matmul", "float32")
    assert found["error"] <= F32


def test_other_paths_hold_every_scale() -> None:
    for arch in ("interpret", "sm_86"):
        found = figures("cpu", "ladder")[f"scales that float16 cannot hold, {arch}"]
        assert found["error"] <= TOLERANCES[found["dot"]]
