"""Which kernels are used, and that numba's and numpy's are the same function, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import numba_compile, numba_kernels, numpy_kernels
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE, kernels

Array = NDArray[Any]

NO_NUMBA = "import sys, warnings; sys.modules['numba'] = None; warnings.simplefilter('always')\n"
ASK_TWICE = """
from gptoss_convert.formats.codecs.accelerate import kernels
print(kernels().__name__ == kernels().__name__, kernels().__name__.rpartition('.')[2])
"""

shapes = st.tuples(st.integers(0, 5), st.sampled_from([1, 2, 3, 5, 90, 131]))
seeds = st.integers(0, 2**32 - 1)
lengths = st.sampled_from([0, 1, 2, 31, 8191, 8192, 8193, 65_537])
checked = settings(deadline=None, max_examples=60)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)


def strided(rng: Generator, *shape: int, dtype: Any = np.uint8) -> Array:
    """Random bytes: contiguous, or every second row, or every second row from an odd address."""
    kind = rng.integers(3)
    rows = shape[0] if kind == 0 else 2 * shape[0]
    n_bytes = rows * int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    flat = rng.integers(0, 256, n_bytes + 1, dtype=np.uint8)[int(kind == 2) :][:n_bytes]
    return flat.view(dtype).reshape(rows, *shape[1:])[:: 1 if kind == 0 else 2]


def both(name: str, inputs: list[Array | int], outputs: list[Array]) -> None:
    """Runs `name` of both modules on equal outputs; asserts equal results and equal bytes, gaps between rows too."""
    numba, numpy = (run_kernel(getattr(module, name), inputs, outputs) for module in (numba_kernels, numpy_kernels))
    assert numba == numpy


def run_kernel(kernel: Any, inputs: list[Array | int], outputs: list[Array]) -> tuple[int | None, list[bytes]]:
    """What `kernel` returns and the bytes of the memory that copies of `outputs` lie in."""
    bases = [(out if out.base is None else out.base).copy() for out in outputs]
    outs = [
        np.ndarray(out.shape, out.dtype, base, _offset(out), out.strides)
        for out, base in zip(outputs, bases, strict=True)
    ]
    return kernel(*inputs, *outs), [base.tobytes() for base in bases]


def _offset(out: Array) -> int:
    return 0 if out.base is None else out.__array_interface__["data"][0] - out.base.__array_interface__["data"][0]


def test_numba_is_chosen_unless_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_NUMBA_VARIABLE, raising=False)
    assert kernels() is numba_kernels
    monkeypatch.setenv(NO_NUMBA_VARIABLE, "1")
    assert kernels() is numpy_kernels


def test_without_numba_the_twin_is_used_and_one_warning_given() -> None:
    done = run_python(NO_NUMBA + ASK_TWICE, **{NO_NUMBA_VARIABLE: "0"})
    assert done.stdout.split() == ["True", "numpy_kernels"]
    assert done.stderr.count("SlowCodecWarning: numba cannot be imported") == 1


def test_when_the_twin_is_asked_for_numba_is_not_imported_and_nothing_warned() -> None:
    done = run_python(NO_NUMBA + ASK_TWICE, **{NO_NUMBA_VARIABLE: "1"})
    assert done.stdout.split() == ["True", "numpy_kernels"]
    assert done.stderr == ""


def test_importing_the_codecs_imports_no_numba() -> None:
    modules = "e2m1, e8m0, mxfp4, ggml_mxfp4, floats, accelerate"
    done = run_python(f"import sys\nfrom gptoss_convert.formats.codecs import {modules}\nprint('numba' in sys.modules)")
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("error", [RuntimeError("no locator available"), OSError("disk full")])
def test_a_kernel_that_cannot_be_kept_on_disk_is_compiled_all_the_same(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def njit(*_: Any, nogil: bool, cache: bool = False) -> Any:
        assert nogil
        if cache:
            raise error
        return lambda function: function

    monkeypatch.setattr(numba_compile, "njit", njit)
    assert numba_compile.kernel()(lambda value: value + 1)(1) == 2


@checked
@given(shape=shapes, seed=seeds)
def test_repack_to_ggml_is_the_same(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    both("repack_to_ggml", [strided(rng, *shape, 16), strided(rng, *shape)], [strided(rng, *shape, 17)])


@checked
@given(shape=shapes, seed=seeds)
def test_repack_from_ggml_is_the_same(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    both("repack_from_ggml", [strided(rng, *shape, 17)], [strided(rng, *shape, 16), strided(rng, *shape)])


@checked
@given(shape=shapes, seed=seeds, dtype=st.sampled_from([np.uint32, np.uint64]))
def test_expand_is_the_same(shape: tuple[int, int], seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, np.iinfo(dtype).max, (256, 256), dtype)
    both("expand", [strided(rng, *shape, 16), strided(rng, *shape), pairs], [strided(rng, *shape, 16, dtype=dtype)])


@checked
@given(shape=shapes, seed=seeds, dtype=st.sampled_from([np.uint16, np.uint32]))
def test_match_is_the_same(shape: tuple[int, int], seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    magnitudes = distinct_magnitudes(rng, dtype)
    values, scales = strided(rng, shape[0], shape[1] * 32, dtype=dtype), strided(rng, *shape)
    targets = magnitudes[scales.repeat(32, axis=1), rng.integers(0, 8, values.shape)]
    flipped = targets ^ rng.integers(0, 2, values.shape, dtype) << dtype(np.iinfo(dtype).bits - 1)
    np.copyto(values, flipped, where=rng.random(values.shape) < 0.9)
    both("match", [values, scales, magnitudes], [strided(rng, *shape, 16)])


def distinct_magnitudes(rng: Generator, dtype: Any) -> Array:
    """[256, 8]: eight different patterns per row with the highest bit clear, a quarter of them replaced by all ones."""
    limit = np.iinfo(dtype).max >> 1
    steps = rng.integers(1, limit // 8, (256, 8)).astype(dtype)
    magnitudes = np.cumsum(steps, axis=1, dtype=dtype) - steps[:, :1]
    magnitudes[rng.random(magnitudes.shape) < 0.25] = np.iinfo(dtype).max
    return magnitudes


@checked
@given(n=lengths, seed=seeds, dtype=st.sampled_from([np.uint16, np.uint32]), exponent=st.sampled_from([0x7C00, 0x7F80]))
def test_first_nonfinite_is_the_same(n: int, seed: int, dtype: Any, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1 << 16, n, dtype) & dtype(~exponent & 0xFFFF)
    values[rng.integers(0, max(1, n), min(n, seed % 3))] |= dtype(exponent)
    both("first_nonfinite", [values, exponent], [])


@checked
@given(n=lengths, seed=seeds)
def test_widen_is_the_same(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    both("widen", [rng.integers(0, 1 << 16, n, np.uint16)], [np.zeros(n, np.uint32)])


@checked
@given(n=lengths, seed=seeds, overflowing=st.booleans())
def test_narrow_is_the_same(n: int, seed: int, overflowing: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1 << 32, n, np.uint32)
    special = np.uint32([0x7F7F_FFFF, 0x7F80_0000, 0x7F80_0001, 0xFFFF_FFFF, 0x3F80_8000, 0x3F81_8000, 0x8000_0000])
    np.copyto(values, rng.choice(special, n), where=rng.random(n) < 0.3)
    if not overflowing:
        values[(values & 0x7FFF_8000) == 0x7F7F_8000] = 0x7F7F_0001
    both("narrow", [values], [np.zeros(n, np.uint16)])


@checked
@given(n=lengths, seed=seeds, flags=st.sampled_from([0, 1, 2, 3]))
def test_translate_is_the_same(n: int, seed: int, flags: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 1 << 16, 1 << 16, np.uint32) | rng.choice(np.uint32([0, flags << 16]), 1 << 16)
    both("translate", [rng.integers(0, 1 << 16, n, np.uint16), table], [np.zeros(n, np.uint16)])
