"""What `prepare` says: lines that can be acted upon."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.prepare import command, speed
from gptoss_convert.convert.prepare.command import Preparation, carry_out, prepare
from gptoss_convert.convert.prepare.consumers import TITLES
from gptoss_convert.convert.prepare.model import packed
from gptoss_convert.convert.prepare.report import (
    describe_preparation,
    describe_prepared,
    preparation_lines,
    start_lines,
)
from gptoss_convert.convert.run import run
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.hf_files import GPT_OSS_20B


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true shapes of 120b, all zeros, on a few megabytes of disk."""
    path = tmp_path_factory.mktemp("large") / "gpt-oss-120b"
    run(plan_demo(path, "120b", sparse=True), prove=False)
    return path


@pytest.fixture(scope="module")
def on_a_3090(large: Path) -> Preparation:
    return prepare(large, "llama.cpp", device="3090")


def test_the_report_is_json(on_a_3090: Preparation) -> None:
    """Which keys it has is compared with docs/json.md in tests/test_json_reports.py."""
    report = describe_preparation(on_a_3090)
    assert json.loads(json.dumps(report)) == json.loads(json.dumps(report, allow_nan=False))


def test_what_does_not_fit_is_said_with_how_much_and_what_helps(on_a_3090: Preparation) -> None:
    text = "\n".join(preparation_lines(on_a_3090))
    assert "does not fit: it needs 61.49 GiB of 24.00 GiB that the driver reports; 37.49 GiB are missing" in text
    assert "--n-cpu-moe 24, which leaves the experts of the first 24 of 36 layers" in text
    assert "the command below does this" in text
    assert f"hf → gguf, {on_a_3090.output.n_bytes:,} bytes" in text
    assert start_lines(on_a_3090.commands)[1] == (
        "  llama-server -m gpt-oss-120b-mxfp4.gguf -c 16384 -np 1 -ngl 99 --jinja --n-cpu-moe 24"
    )


def test_the_report_holds_the_same_figures(on_a_3090: Preparation) -> None:
    report = describe_preparation(on_a_3090)
    needs = report["fit"]["needs"]
    assert needs["total"] == sum(needs[key] for key in ("weights", "kv_cache", "activations", "runtime"))
    assert report["fit"]["spare"] == report["fit"]["available"] - needs["total"] < 0
    assert (report["fit"]["fits"], report["fit"]["applied"]) == (False, "n-cpu-moe")
    assert report["bytes"] == sum(file["bytes"] for file in report["files"]) == report["plan"]["bytes"]
    assert {other["consumer"] for other in report["alternatives"]} == set(TITLES) - {"llama.cpp"}
    assert shlex.split(report["commands"][0]["line"]) == list(report["commands"][0]["arguments"])


def test_ampere_is_told_which_programs_emulate_and_what_bf16_would_take(large: Path) -> None:
    text = "\n".join(preparation_lines(prepare(large, "ampere")))
    assert "an example of ampere" in text
    assert "65.36 GB of weights where BF16 would take 233.66 GB" in text
    assert "vLLM: HF MXFP4 directory, MXFP4 emulated, 65.25 GB of weights" in text
    assert "not       mlx-lm, OpenAI's Metal program" in text


def test_apple_is_told_of_all_three_files(large: Path) -> None:
    lines = preparation_lines(prepare(large, "apple", device="M3 Max 96"))
    text = "\n".join(lines)
    assert "fits: it needs 62.07 GiB of 72.00 GiB that macOS lets the GPU have" in text
    assert "mlx-lm: MLX directory, MXFP4 emulated" in text
    assert "OpenAI's Metal program: model.bin" in text
    assert "transformers: HF MXFP4 directory, decoded to BF16, 233.66 GB of weights" in text


def test_where_nothing_helps_it_is_said(large: Path) -> None:
    text = "\n".join(preparation_lines(prepare(large, "mlx", device="M1 8")))
    assert "none that we know of: the commands below would fail" in text


def test_several_cards_here_are_used_before_anything_else(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = command.choose("vllm", "A100-40")
    assert choice.machine is not None
    several = command.replace(choice, machine=command.replace(choice.machine, count=4), origin="here")
    monkeypatch.setattr(command, "choose", lambda *_: several)
    preparation = prepare(large, "vllm")
    assert preparation.verdict.fits
    assert "vLLM on 2 × A100-40 (40 GB), this machine" in preparation_lines(preparation)[0]
    assert preparation.commands[0].arguments[-2:] == ("--tensor-parallel-size", "2")


def test_a_mac_is_given_the_command_that_raises_its_limit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_model", lambda *_: packed(parse_config(GPT_OSS_20B)))
    preparation = prepare(tiny, "apple", device="M3 Pro 18")
    mib = -(-preparation.verdict.needs.total // (1 << 20))
    assert describe_preparation(preparation)["fit"]["applied"] == "wired-limit"
    assert start_lines(preparation.commands)[1] == f"  sudo sysctl iogpu.wired_limit_mb={mib}"
    assert "--n-cpu-moe" not in start_lines(preparation.commands)[2]


def test_a_run_is_reported_with_its_proof(tiny: Path, tmp_path: Path) -> None:
    preparation = prepare(tiny, "ampere", tmp_path / "out.gguf")
    report = describe_prepared(preparation, carry_out(preparation), 1.0)
    assert report["run"]["verified"] is True
    assert report["run"]["bytes"] == report["bytes"] == (tmp_path / "out.gguf").stat().st_size


def test_nothing_to_convert_is_said(tiny: Path) -> None:
    preparation = prepare(tiny, "hopper")
    assert f"nothing: vLLM reads {tiny} as it is" in "\n".join(preparation_lines(preparation))
    assert describe_prepared(preparation, None, 0.0)["run"] is None


def test_a_disk_that_is_too_full_is_said_before_anything_is_written(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "free_bytes", lambda _: 1000)
    preparation = prepare(tiny, "ampere")
    assert "too full: 1,000 bytes are free" in "\n".join(preparation_lines(preparation))
    assert describe_preparation(preparation)["disk"] == {"free": 1000, "enough": False}


def test_small_and_empty_outputs_are_not_timed(tiny: Path, on_a_3090: Preparation) -> None:
    assert prepare(tiny, "ampere").rate is None
    assert on_a_3090.rate is None
    assert on_a_3090.writes_zeros


def test_the_disks_rate_is_measured_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "PROBE_BYTES", 8_000_000)
    rate = speed.write_rate(tmp_path)
    assert rate is not None
    assert rate > 1e5
    assert list(tmp_path.iterdir()) == []
    assert speed.write_rate(tmp_path / "nowhere") is None
    assert speed.existing(tmp_path / "a" / "b") == tmp_path


def test_the_estimate_is_bytes_over_the_measured_rate(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PROBE_BYTES", 1)
    monkeypatch.setattr(command, "write_rate", lambda _: 1e6)
    preparation = prepare(tiny, "ampere")
    seconds = round(preparation.output.n_bytes / 1e6, 1)
    assert describe_preparation(preparation)["estimate"] == {"seconds": seconds, "write_bytes_per_second": 1_000_000}
    assert "s to write, an estimate" in "\n".join(preparation_lines(preparation))
