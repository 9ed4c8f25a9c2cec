"""Which way the experts are run in validation: by the kernels on a GPU or in Triton's interpreter, or by torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ...formats.errors import UsageError
from ..checkpoint import Checkpoint
from .validate import MoeRunner

MakeRunner = Callable[[Checkpoint], AbstractContextManager[MoeRunner]]


@dataclass(frozen=True)
class Chosen:
    """How experts are run: `name` for people; `make` is None for torch on the CPU."""

    name: str
    make: MakeRunner | None


CPU = Chosen("the CPU (torch in float32, weights decoded by numba; the Triton kernels were not run)", None)


def choose(device: str) -> Chosen:
    """What `--device` asks for: "cpu", "cuda", "interpret", or "auto", which says why it takes the CPU.

    Raises:
        UsageError: it is not there.
    """
    if device == "cpu":
        return CPU
    if device == "interpret":
        return _interpreter()
    missing = _why_no_gpu()
    if missing is None:
        found = Chosen(f"{torch.cuda.get_device_name(0)} (Triton kernels on the stored bytes)", _kernels("cuda"))
        if device == "cuda":
            return found
        failure = _self_test(found)
        return found if failure is None else Chosen(f"{CPU.name}; the GPU's kernels failed their test: {failure}", None)
    if device == "cuda":
        raise UsageError(
            "there is no GPU to run the kernels on", found=missing, remedy="Use --device cpu or interpret."
        )
    return Chosen(f"{CPU.name}; {missing}", None)


def _interpreter() -> Chosen:
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise UsageError("Triton is loaded without its interpreter", remedy="Run the command in a process of its own.")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        make = _kernels("cpu")
    except ImportError as error:
        raise UsageError("Triton cannot be imported", found=str(error), remedy="Use --device cpu.") from None
    return Chosen("Triton's interpreter (the kernels themselves, one operation at a time)", make)


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


def _self_test(chosen: Chosen) -> str | None:
    """Why the kernels are not to be trusted on this machine; None if they are."""
    from .self_test import demo_checkpoint, kernel_failures

    with demo_checkpoint() as checkpoint:
        failures = kernel_failures(checkpoint, chosen)
    return failures[0] if failures else None
