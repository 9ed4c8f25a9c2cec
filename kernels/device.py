"""What this machine has to multiply with. Looks only when asked, fetches nothing, never fails."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from importlib import metadata
from typing import Any

from .architectures import ARCHITECTURES
from .ladder import ENCODINGS, Device, Path, fp16_exact, parse_arch, path_for

__all__ = [
    "ARCHITECTURES",
    "ENCODINGS",
    "Device",
    "Path",
    "devices",
    "fp16_exact",
    "memory_bytes",
    "parse_arch",
    "path_for",
    "processor",
    "version_of",
]

# Every name under which a module is distributed, if there are more than its own.
_PACKAGES = {"triton": ("triton", "triton-rocm", "pytorch-triton", "pytorch-triton-rocm", "triton-windows")}


def devices() -> list[Device]:
    """GPUs first, then the processor, then Triton's interpreter where Triton is installed."""
    triton, torch = version_of("triton"), version_of("torch")
    found = _gpus(triton, torch)
    found.append(Device(processor(), "cpu", "", memory_bytes(), triton, torch))
    if triton is not None:
        found.append(Device("Triton's interpreter", "interpret", "", memory_bytes(), triton, torch))
    return found


def version_of(module: str) -> str | None:
    """The version of the package that has `module`, without importing it; None if it is not installed."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ImportError, ValueError):
        return None
    for package in _PACKAGES.get(module, (module,)):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def processor() -> str:
    """The processor's kind and the number of its threads: "x86_64, 2 threads"."""
    return f"{platform.machine() or 'processor'}, {os.cpu_count() or 1} threads"


def memory_bytes() -> int | None:
    """All the memory of this machine; None if it does not say."""
    try:
        return _windows_memory() if sys.platform == "win32" else _posix_memory()
    except (AttributeError, OSError, ValueError):
        return None


def _posix_memory() -> int | None:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _windows_memory() -> int | None:
    """`GlobalMemoryStatusEx`, whose structure is two uint32 (its size first) and seven uint64 (the total first)."""
    import ctypes

    status = (ctypes.c_uint64 * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
    windll: Any = getattr(ctypes, "windll")  # noqa: B009  (other systems lack it)
    return int(status[1]) if windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _gpus(triton: str | None, torch_version: str | None) -> list[Device]:
    """Every GPU that torch can use. A driver may fail in any way: a GPU that cannot be asked is not there."""
    if torch_version is None:
        return []
    try:
        import torch

        if not torch.cuda.is_available():
            return []
        return [_gpu(torch, index, triton, torch_version) for index in range(torch.cuda.device_count())]
    except Exception:
        return []


def _gpu(torch: Any, index: int, triton: str | None, torch_version: str) -> Device:
    found = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:
        arch = found.gcnArchName.partition(":")[0]
        return Device(found.name, "hip", arch, found.total_memory, triton, torch_version)
    return Device(found.name, "cuda", f"sm_{found.major}{found.minor}", found.total_memory, triton, torch_version)
