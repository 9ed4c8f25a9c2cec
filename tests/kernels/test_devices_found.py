"""What is found on a machine: its processor, its GPUs, Triton's interpreter, and how much memory there is."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gptoss_convert.kernels import device as module
from gptoss_convert.kernels.device import devices


def fake_gpu(monkeypatch: pytest.MonkeyPatch, hip: str | None, **properties: object) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(**properties))
    monkeypatch.setattr(torch.version, "hip", hip)


def test_importing_imports_neither_torch_nor_triton() -> None:
    code = "import sys, gptoss_convert.kernels.device; print({'torch', 'triton', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_machine_has_a_processor_with_memory() -> None:
    processor = next(device for device in devices() if device.backend == "cpu")
    assert processor.memory_bytes is not None
    assert processor.memory_bytes > 100_000_000
    assert processor.torch is not None
    assert processor.torch.partition("+")[0] == torch.__version__.partition("+")[0]


def test_an_nvidia_gpu_is_named_by_its_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, None, name="NVIDIA RTX", major=12, minor=0, total_memory=32_000_000_000)
    gpu = devices()[0]
    assert (gpu.name, gpu.backend, gpu.arch, gpu.memory_bytes) == ("NVIDIA RTX", "cuda", "sm_120", 32_000_000_000)


def test_an_amd_gpu_is_named_without_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "7.0", name="MI300X", gcnArchName="gfx942:sramecc+:xnack-", total_memory=192_000_000_000)
    gpu = devices()[0]
    assert (gpu.backend, gpu.arch) == ("hip", "gfx942")


def test_a_driver_that_fails_hides_the_gpu_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise RuntimeError("the driver is older than the runtime")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    assert {device.backend for device in devices()} <= {"cpu", "interpret"}


def test_without_triton_there_is_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version_of", lambda name, *packages: None if name == "triton" else "2.13.0")
    assert [device.backend for device in devices() if device.arch == ""] == ["cpu"]


def test_what_is_not_installed_has_no_version() -> None:
    assert module.version_of("no_such_module_at_all") is None
    assert module.version_of("numpy") == np.__version__


def test_windows_is_asked_for_its_memory_by_its_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def fill(status: object) -> int:
        values = status._obj  # type: ignore[attr-defined]
        assert values[0] == 64
        values[1] = 34_359_738_368
        return 1

    kernel32 = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    monkeypatch.setattr(module.sys, "platform", "win32")
    assert module.memory_bytes() == 34_359_738_368
