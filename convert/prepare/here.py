"""The machine at hand. Looks only when asked, starts nothing but `sysctl`, never fails."""

from __future__ import annotations

import platform
import subprocess

from ...kernels.device import devices, memory_bytes, processor
from .machines import APPLE, CPU, MIB, Machine, family_of

_SYSCTL = "/usr/sbin/sysctl"


def machine_here() -> Machine:
    """The first GPU and how many like it there are; a Mac as a whole; else the processor with its memory."""
    gpus = [device for device in devices() if device.arch]
    if gpus:
        first = gpus[0]
        alike = sum((gpu.name, gpu.arch) == (first.name, first.arch) for gpu in gpus)
        family = family_of(first.arch)
        return Machine(first.name, family, first.arch, first.memory_bytes, count=alike, host_bytes=memory_bytes())
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return _mac()
    return processor_here()


def processor_here() -> Machine:
    """This machine's processor with its memory, whatever else there is."""
    return Machine(processor(), CPU, "", memory_bytes())


def _mac() -> Machine:
    """A Mac; its memory and the limit for the GPU, if one was set, are what the system says."""
    memory, limit = _number("hw.memsize") or memory_bytes(), _number("iogpu.wired_limit_mb")
    name = _sysctl("machdep.cpu.brand_string") or "Apple silicon"
    return Machine(name, APPLE, "", memory, wired_bytes=limit * MIB if limit else None)


def _number(key: str) -> int | None:
    text = _sysctl(key)
    return int(text) if text.isdigit() else None


def _sysctl(key: str) -> str:
    """The value of a key of the system; "" if it does not say."""
    try:
        done = subprocess.run([_SYSCTL, "-n", key], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
