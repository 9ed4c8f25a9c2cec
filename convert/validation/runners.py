"""Which way layers are run in validation: by the kernels on a GPU or in Triton's interpreter, or by torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ...formats.codecs.accelerate import uses_numba
from ...formats.codecs.encoding import METAL_MXFP4, MXFP4, Encoding, canonical
from ...formats.errors import UsageError
from ...kernels.device import Device, devices, path_for
from ...kernels.ladder import OWN_DECODE
from ..checkpoint import Checkpoint
from .layer import Runner

MakeRunner = Callable[[Checkpoint], AbstractContextManager[Runner]]

# Validation multiplies in float32 on every device: in bfloat16, rounding would hide a wrong bit.
DOT = "float32"


@dataclass(frozen=True)
class PathUsed:
    """How weights of one encoding were multiplied.

    Attributes:
        part: whose they are: "attention" or "experts".
        encoding: as it is stored.
        read_as: the encoding that was multiplied: another if the stored one was repacked or decoded before.
        path: as `doctor` names it.
        dot: the float that products are made of.
    """

    part: str
    encoding: str
    read_as: str
    path: str
    dot: str = DOT

    def __str__(self) -> str:
        before = "" if self.read_as == self.encoding else f", turned into {self.read_as} before"
        return f"{self.part} in {self.encoding}: {self.path}, products in {self.dot}{before}"


@dataclass(frozen=True)
class Chosen:
    """Where layers are run: `make` is None for torch on the CPU; `why` says why this device, if none was named."""

    device: Device
    make: MakeRunner | None
    why: str = ""

    @property
    def name(self) -> str:
        """For people."""
        what = {
            "cpu": f"the CPU ({self.device.name}); the Triton kernels were not run",
            "interpret": "Triton's interpreter: the kernels themselves, one operation at a time",
        }.get(self.device.backend, f"{self.device.name} ({self.device.arch})")
        if self.device.backend == "cpu" and not uses_numba():
            what += "; numba is not used, so both sides decode with numpy"
        return what + (f", for {self.why}" if self.why else "")

    def path(self, part: str, encoding: Encoding) -> PathUsed:
        """How weights of `part` in `encoding` are multiplied here."""
        if self.device.backend == "cpu":
            return PathUsed(part, encoding.name, encoding.name, path_for(encoding.name, self.device).name)
        read_as = read_by_kernels(encoding).name
        # The ladder's path for GPUs multiplies in bfloat16 where it can; in float32 the kernels decode by themselves.
        is_interpreted = self.device.backend == "interpret"
        name = path_for(read_as, self.device).name if is_interpreted else OWN_DECODE
        return PathUsed(part, encoding.name, read_as, name)


def read_by_kernels(encoding: Encoding) -> Encoding:
    """The encoding that the kernels are given: the stored one, or the canonical one where they do not read it."""
    from ...kernels.weights import ENCODINGS

    if encoding is METAL_MXFP4:
        return MXFP4
    return encoding if encoding.name in ENCODINGS else canonical(encoding)


def choose(device: str, *, test: bool = True) -> Chosen:
    """What `--device` asks for: "cpu", "cuda", "interpret", or "auto", which says why it takes the CPU.

    Args:
        device: which.
        test: whether "auto" takes a GPU only if its kernels pass their test.

    Raises:
        UsageError: it is not there.
    """
    if device == "cpu":
        return _cpu()
    if device == "interpret":
        return _interpreter()
    missing = _why_no_gpu()
    if missing is None:
        found = Chosen(_device("cuda", "hip"), _kernels("cuda"))
        failure = _failure(found) if device == "auto" and test else None
        return found if failure is None else _cpu(f"the GPU's kernels failed their test: {failure}")
    if device == "cuda":
        raise UsageError(
            "there is no GPU to run the kernels on", found=missing, remedy="Use --device cpu or interpret."
        )
    return _cpu(missing)


def _cpu(why: str = "") -> Chosen:
    return Chosen(_device("cpu"), None, why)


def _device(*backends: str) -> Device:
    return next(device for device in devices() if device.backend in backends)


def _interpreter() -> Chosen:
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise UsageError("Triton is loaded without its interpreter", remedy="Run the command in a process of its own.")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        make = _kernels("cpu")
    except ImportError as error:
        raise UsageError("Triton cannot be imported", found=str(error), remedy="Use --device cpu.") from None
    return Chosen(_device("interpret"), make)


def _kernels(device: str) -> MakeRunner:
    from .kernel_runner import KernelRunner

    return lambda checkpoint: KernelRunner(checkpoint, torch.device(device))


def _why_no_gpu() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return None


def _failure(chosen: Chosen) -> str | None:
    """Why the kernels are not to be trusted on this machine; None if they are."""
    from .self_test import demo_checkpoint, kernel_failures

    try:
        with demo_checkpoint() as checkpoint:
            failures = kernel_failures(checkpoint, chosen)
    except Exception as error:  # A driver or a compiler may fail in any way.
        return in_a_line(error.__cause__ or error)
    return failures[0] if failures else None


def in_a_line(error: BaseException) -> str:
    """Its kind and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
