"""Where the kernels run: in Triton's interpreter, and with `-m gpu` on a GPU. Checks that take `device` run on both."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(params=[pytest.param("cpu", id="interpreter"), pytest.param("cuda", id="gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if sys.platform != "linux":
        pytest.skip("Triton runs on Linux only")
    return str(request.param)
