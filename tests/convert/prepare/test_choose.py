"""What `--for` and `--device` come to, and which requests contradict themselves."""

from __future__ import annotations

import pytest

from gptoss_convert.convert.prepare import choose as module
from gptoss_convert.convert.prepare import here
from gptoss_convert.convert.prepare.choose import PURPOSES, Choice, choose, reason
from gptoss_convert.convert.prepare.consumers import NAMED, READS, TITLES, WAYS
from gptoss_convert.convert.prepare.machines import APPLE, CPU, FAMILIES, GIB, MIB, OTHER, Machine
from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels.device import Device

HERE = Machine("x86_64, 2 threads", CPU, "", 24 * GIB)
# Purpose to machine and program, on a machine without a GPU.
EXPECTED = {
    "ampere": ("RTX 3090", "llama.cpp"),
    "turing": ("T4", "llama.cpp"),
    "ada": ("RTX 4090", "llama.cpp"),
    "hopper": ("H100", "vllm"),
    "blackwell": ("RTX 5090", "llama.cpp"),
    "mi300": ("MI300X", "vllm"),
    "rdna3": ("RX 7900 XTX", "llama.cpp"),
    "apple": ("M4", "llama.cpp"),
    "cpu": (HERE.name, "llama.cpp"),
    "auto": (HERE.name, "llama.cpp"),
    "ollama": (HERE.name, "ollama"),
    "llama.cpp": (HERE.name, "llama.cpp"),
    "lm-studio": (HERE.name, "lm-studio"),
    "transformers": (HERE.name, "transformers"),
    "vllm": (None, "vllm"),
    "mlx": (None, "mlx"),
}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "machine_here", lambda: HERE)
    monkeypatch.setattr(module, "processor_here", lambda: HERE)


def found_here(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> Machine:
    monkeypatch.setattr(here, "devices", lambda: list(devices))
    monkeypatch.setattr(here, "memory_bytes", lambda: 64 * GIB)
    return here.machine_here()


def test_every_purpose_is_expected_here() -> None:
    assert set(EXPECTED) == set(PURPOSES)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_purpose_is_a_machine_and_a_program(purpose: str) -> None:
    choice = choose(purpose, None)
    assert (choice.machine and choice.machine.name, choice.consumer) == EXPECTED[purpose]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("device", "consumer"), [("A100-80", "vllm"), ("B200", "vllm"), ("L40S", "llama.cpp")])
def test_servers_run_vllm(device: str, consumer: str) -> None:
    assert choose("auto", device).consumer == consumer


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("purpose", "device", "problem"),
    [("turing", "3090", "RTX 3090 .24 GB. is ampere, not turing; expected --for ampere"),
     ("vllm", "T4", "vLLM does not run gpt-oss on T4.*expected --for ollama or llama.cpp or lm-studio or transformers"),
     ("mlx", "3090", "mlx-lm does not run gpt-oss on RTX 3090"),
     ("vllm", "M2 Max 64", "vLLM does not run gpt-oss on M2 Max"), ("ampere", "nothing", "no such device")],
)  # fmt: skip
def test_requests_that_contradict_themselves_are_refused(purpose: str, device: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        choose(purpose, device)


def test_the_table_of_ways_is_whole() -> None:
    assert set(WAYS) == set(READS) == set(TITLES) == {*NAMED, "metal"}
    assert set(WAYS["llama.cpp"]) == {*FAMILIES, OTHER}
    assert all(set(ways) <= {*FAMILIES, OTHER} for ways in WAYS.values())


@pytest.mark.usefixtures("no_gpu")
def test_native_products_are_claimed_only_where_the_hardware_has_them() -> None:
    native = {("llama.cpp", "RTX 5090"), ("vllm", "RTX 5090"), ("vllm", "B200")}
    for consumer in ("llama.cpp", "vllm"):
        for device in ("3090", "4090", "H100", "MI300X", "RTX 5090", "B200"):
            way = choose(consumer, device).way
            assert way is not None
            assert (way.experts == "native") == ((consumer, device) in native)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_reason_is_one_sentence_with_bytes(purpose: str) -> None:
    text = reason(choose(purpose, None), 13_780_000_000, 41_830_000_000)
    assert "41.83 GB" in text
    assert text.endswith(".")
    assert "MXFP4" in text


def test_this_machine_is_looked_at() -> None:
    choice: Choice = choose("auto", None)
    assert choice.machine is not None
    assert choice.machine.memory_bytes
    assert choice.origin == "here"


def test_the_gpus_here_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device("RTX 3090", "cuda", "sm_86", 24 * GIB)
    machine = found_here(monkeypatch, gpu, gpu, Device("RTX 2080", "cuda", "sm_75", 8 * GIB), Device("x", "cpu", ""))
    assert (machine.name, machine.family, machine.count, machine.host_bytes) == ("RTX 3090", "ampere", 2, 64 * GIB)


def test_a_gpu_without_a_family_still_runs_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = found_here(monkeypatch, Device("RX 9070", "hip", "gfx1201", 16 * GIB))
    monkeypatch.setattr(module, "machine_here", lambda: machine)
    choice = choose("auto", None)
    assert (choice.consumer, choice.way is not None) == ("llama.cpp", True)


def test_a_mac_says_its_memory_and_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"hw.memsize": str(36 * GIB), "iogpu.wired_limit_mb": "30000", "machdep.cpu.brand_string": "Apple M3 Max"}
    monkeypatch.setattr(here.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(here.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(here, "_sysctl", said.__getitem__)
    assert found_here(monkeypatch) == Machine("Apple M3 Max", APPLE, "", 36 * GIB, wired_bytes=30_000 * MIB)


def test_a_system_without_sysctl_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "_SYSCTL", "/nowhere/sysctl")
    assert here._sysctl("hw.memsize") == ""
