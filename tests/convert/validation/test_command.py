"""`validate` as users meet it: what may be asked for, where it runs, and what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import copy_of, edit_json
from command_line import command, refused

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.validation import runners
from gptoss_convert.convert.validation.measures import LAYER_STAGES, LIMITS, STAGES
from gptoss_convert.formats.codecs.encoding import BF16, F16, F32, GGML_MXFP4, METAL_MXFP4, MXFP4, QUANTIZED
from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels.device import Device, path_for


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def validated(*arguments: str | int | Path) -> dict[str, Any]:
    outcome = command("validate", *map(str, arguments), "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


# --- layers and tokens -------------------------------------------------------------------------------------------


def test_all_layers_and_both_ends_are_measured_unless_some_are_named(tiny: Path) -> None:
    report = validated(tiny)
    assert [layer["layer"] for layer in report["layers"]] == [0, 1, 2, 3]
    assert all(tuple(layer["stages"]) == LAYER_STAGES for layer in report["layers"])
    assert report["embedding"] is not None
    assert report["logits"] is not None
    assert (report["tokens"], report["inputs"]) == (129, "text")


@pytest.mark.parametrize(("asked", "measured"), [("1", [1]), ("2,0", [0, 2]), ("3,3", [3])])
def test_only_layers_that_are_named_are_measured(asked: str, measured: list[int], tiny: Path) -> None:
    report = validated(tiny, "--layers", asked)
    assert [layer["layer"] for layer in report["layers"]] == measured
    assert (report["logits"] is None) == (3 not in measured)


@pytest.mark.parametrize("layers", ["4", "0,4", "99999999999"])
def test_a_layer_that_is_not_there_is_refused(layers: str, tiny: Path) -> None:
    outcome = command("validate", tiny, "--layers", layers)
    refused(outcome, "the model has no such layer; expected 0 to 3; found", layers.rpartition(",")[2], code=2)


@pytest.mark.parametrize("layers", ["", "a", "-1", "0,", "1-2", "٣", "0 1"])
def test_what_are_no_numbers_of_layers_is_refused(layers: str, tiny: Path) -> None:
    refused(command("validate", tiny, f"--layers={layers}"), "the layers are not numbers; expected all, or", code=2)


@pytest.mark.parametrize("tokens", [33, 129, 200])
def test_as_many_tokens_are_run_as_are_asked_for(tokens: int, tiny: Path) -> None:
    assert validated(tiny, "--layers", 0, "--tokens", tokens)["tokens"] == tokens


def test_tokens_that_stay_within_the_window_are_refused(tiny: Path) -> None:
    refused(command("validate", tiny, "--tokens", "32"), "--tokens of more than 32, better 129; found 32", code=2)


def test_more_tokens_than_positions_are_refused(tiny: Path) -> None:
    outcome = command("validate", tiny, "--tokens", "131073")
    refused(outcome, "--tokens of at most 131072; found 131073", code=2)


def test_no_tokens_are_refused(tiny: Path) -> None:
    assert command("validate", tiny, "--tokens", "0").code == 2


def test_without_a_tokenizer_tokens_are_seeded(tiny: Path, tmp_path: Path) -> None:
    from ways import Ways

    original = Ways(tiny, tmp_path).path("original")
    bare = copy_of(original, tmp_path / "bare")
    one, two = (validated(bare, "--layers", 0) for _ in range(2))
    assert one["inputs"] == "random"
    assert one["layers"] == two["layers"]


# --- what contradicts itself -------------------------------------------------------------------------------------


def test_nothing_to_validate_is_refused() -> None:
    refused(command("validate"), "nothing to validate; expected PATH, or --self-test", code=2)


@pytest.mark.parametrize("options", [["--layers", "0"], ["--tokens", "200"]])
def test_the_self_test_takes_no_model_layers_or_tokens(options: list[str], tiny: Path) -> None:
    refused(command("validate", "--self-test", tiny), "--self-test has a model of its own", code=2)
    refused(command("validate", "--self-test", *options), "--self-test chooses layers", code=2)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    refused(command("validate", tmp_path / "nothing"), "this is not a gpt-oss checkpoint")


def test_models_of_two_sizes_are_not_compared(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert command("make-demo", other, "--layers", "2", "--quiet").code == 0
    outcome = command("validate", tiny, other)
    refused(outcome, "the two checkpoints are not of one model", "num_hidden_layers", "found 2", code=2)


# --- devices -----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_a_gpu_that_is_not_there_is_refused(tiny: Path) -> None:
    outcome = command("validate", tiny, "--device", "cuda")
    refused(outcome, "there is no GPU to run the kernels on", "torch sees no GPU", "--device cpu or interpret", code=2)


@pytest.mark.usefixtures("without_gpu")
def test_auto_takes_the_cpu_and_says_why(tiny: Path) -> None:
    out = command("validate", tiny, "--layers", "0").out
    assert "the Triton kernels were not run, for torch sees no GPU" in out
    assert "  attention in BF16: numba + torch, products in float32" in out
    assert "  experts in MXFP4: numba + torch, products in float32" in out


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has a GPU, whose kernels are torch's on the CPU."""
    gpu = Device("RTX 3090", "cuda", "sm_86", 25_000_000_000, triton="3.9.0", torch="2.13.0")
    monkeypatch.setattr(runners, "_why_no_gpu", lambda: None)
    monkeypatch.setattr(runners, "devices", lambda: [gpu, Device("x86_64", "cpu", "")])
    monkeypatch.setattr(runners, "_kernels", lambda device: None)


@pytest.mark.usefixtures("with_gpu")
def test_auto_takes_a_gpu_whose_kernels_pass_their_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptoss_convert.convert.validation.self_test.kernel_failures", lambda *_: [])
    assert runners.choose("auto").name == "RTX 3090 (sm_86)"


@pytest.mark.usefixtures("with_gpu")
def test_auto_leaves_a_gpu_whose_kernels_fail_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = ["gguf: down of layer 0 is 12 times beyond rounding"]
    monkeypatch.setattr("gptoss_convert.convert.validation.self_test.kernel_failures", lambda *_: failures)
    chosen = runners.choose("auto")
    assert chosen.device.backend == "cpu"
    assert chosen.name.endswith(f"for the GPU's kernels failed their test: {failures[0]}")


@pytest.mark.usefixtures("with_gpu")
def test_auto_leaves_a_gpu_whose_driver_breaks_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> list[str]:
        raise RuntimeError("PTX JIT compilation failed\nand so on")

    monkeypatch.setattr("gptoss_convert.convert.validation.self_test.kernel_failures", breaks)
    assert runners.choose("auto").why.endswith("RuntimeError: PTX JIT compilation failed")


def test_the_interpreter_is_refused_where_triton_runs_without_it(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "triton", object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refused(command("validate", tiny, "--device", "interpret"), "in a process of its own", code=2)


def interpreter_error() -> Exception:
    from triton.runtime.errors import InterpreterError

    return InterpreterError("TypeError('only 0-dimensional arrays can be converted')")


def out_of_resources() -> Exception:
    from triton.runtime.errors import OutOfResources

    return OutOfResources(245_760, 101_376, "shared memory")


def driver_error() -> Exception:
    return RuntimeError("Triton Error [CUDA]: device kernel image is invalid")


def cuda_error() -> Exception:
    return RuntimeError("CUDA error: no kernel image is available\nand so on")


@pytest.mark.parametrize("make", [interpreter_error, out_of_resources, driver_error, cuda_error])
def test_a_device_that_the_kernels_do_not_run_on_is_named_with_its_versions(tiny: Path, make: Any) -> None:
    failure = make()
    first = re.escape(str(failure).partition("\n")[0].rstrip("."))
    message = rf"do not run on this device with triton [\d.]+, torch \S+, numpy [\d.]+; found \w+: {first}.*"
    with pytest.raises(UsageError, match=message + r"\. Use --device cpu"), kernel_runner(tiny):
        raise failure


def test_other_failures_are_not_called_the_devices(tiny: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), kernel_runner(tiny):
        raise RuntimeError("shapes do not fit")


def kernel_runner(path: Path) -> Any:
    from gptoss_convert.convert.validation.kernel_runner import KernelRunner

    return KernelRunner(open_checkpoint(path), torch.device("cpu"))


ALL = (MXFP4, METAL_MXFP4, GGML_MXFP4, BF16, F16, F32, *QUANTIZED.values())


@pytest.mark.parametrize("backend", ["cpu", "interpret"])
@pytest.mark.parametrize("encoding", ALL, ids=lambda encoding: encoding.name)
def test_a_path_is_called_what_doctor_calls_it(encoding: Any, backend: str) -> None:
    device = Device("here", backend, "", triton="3.9.0")
    used = runners.Chosen(device, None).path("experts", encoding)
    assert used.path == path_for(used.read_as, device, tokens=512).name
    assert used.encoding == encoding.name


@pytest.mark.parametrize("encoding", ALL, ids=lambda encoding: encoding.name)
def test_on_a_gpu_the_path_is_the_one_of_the_ladder_that_multiplies_in_float32(encoding: Any) -> None:
    used = runners.Chosen(Device("RTX 3090", "cuda", "sm_86", triton="3.9.0"), None).path("experts", encoding)
    assert used.path == path_for(used.read_as, Device("RTX 3090", "cuda", "sm_86", triton="3.9.0"), tokens=1).name
    assert (used.dot, path_for(used.read_as, Device("", "cuda", "sm_86", triton="3"), tokens=1).dot) == ("float32",) * 2


# --- what is said ------------------------------------------------------------------------------------------------


def test_a_valid_model_says_what_was_run_and_how_near_it_was(tiny: Path) -> None:
    out = command("validate", tiny, "--device", "cpu").out
    assert all(re.search(rf"^{stage} +\d\.\de", out, re.MULTILINE) for stage in STAGES)
    assert f"{tiny}: all 4 layers, 129 tokens: Harmony-formatted text" in out
    assert re.search(r"valid: every stage agrees with its float64 reference; at most [\d.]+ % of what", out)


def test_quiet_says_nothing_of_a_valid_model(tiny: Path) -> None:
    outcome = command("validate", tiny, "--layers", "0", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_configs_that_differ_are_said_and_blamed(tiny: Path, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / "other")
    edit_json(other / "config.json", lambda config: config["rope_scaling"].update(truncate=True))
    outcome = command("validate", tiny, other, "--layers", "0", "--device", "cpu")
    assert outcome.code == 1
    assert "note: their configs differ in rope_scaling.truncate: False and True" in outcome.out
    assert "both sides read the same weights, but rope_scaling.truncate is True, not False" in outcome.out


def test_no_number_of_a_report_is_infinite(tiny: Path, tmp_path: Path) -> None:
    def wide(config: dict[str, Any]) -> None:
        config["swiglu_limit"] = 1e300

    other = copy_of(tiny, tmp_path / "other")
    edit_json(other / "config.json", wide)
    outcome = command("validate", tiny, other, "--layers", "0", "--device", "cpu", "--json")
    assert outcome.code in (0, 1)
    json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_limits_in_the_report_are_those_of_float32(tiny: Path) -> None:
    limits = LIMITS["f32"]
    assert validated(tiny, "--layers", 0)["limits"] == {"relative": limits.relative, "worst": limits.worst}
