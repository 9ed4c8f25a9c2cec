"""What `doctor` says follows from the ladder and from the true sizes of the models."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from command_line import command, refused
from rich.console import Console

from gptoss_convert.convert import doctor
from gptoss_convert.convert.doctor import diagnose, doctor_lines, need_table
from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels.architectures import ARCHITECTURES
from gptoss_convert.kernels.device import ENCODINGS, Device

# The tensor bytes of the published models.
OFFICIAL = {"20b": 13_761_264_768, "120b": 65_248_815_744}


def needs(report: dict[str, Any], model: str, encoding: str) -> dict[str, Any]:
    return next(row for row in report["models"][model] if row["encoding"] == encoding)


def paths(report: dict[str, Any], encoding: str) -> dict[str, dict[str, Any]]:
    return {row["tokens"]: row for row in report["devices"][0]["paths"] if row["encoding"] == encoding}


@pytest.fixture
def with_3090(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    gpu = Device("RTX 3090", "cuda", "sm_86", 25_300_000_000, triton="3.9.0", torch="2.13.0")
    monkeypatch.setattr(doctor, "devices", lambda: [gpu])
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 64_000_000_000)
    return diagnose()


def test_this_machine_has_a_path_for_every_encoding_on_every_device() -> None:
    report = diagnose()
    assert report["devices"]
    for device in report["devices"]:
        assert {row["encoding"] for row in device["paths"]} == set(ENCODINGS)


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "cpu", "interpret"])
def test_every_architecture_can_be_asked_about_and_printed(arch: str) -> None:
    report = diagnose(arch)
    assert json.loads(json.dumps(report)) == report
    assert [device["arch"] for device in report["devices"]] == ["" if arch in ("cpu", "interpret") else arch]
    text = "\n".join(doctor_lines(report))
    assert all(encoding in text for encoding in ENCODINGS)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match="no such architecture"):
        diagnose("sm_1")


@pytest.mark.parametrize("model", OFFICIAL)
def test_mxfp4_needs_what_the_published_files_hold(model: str) -> None:
    assert needs(diagnose("cpu"), model, "MXFP4")["bytes"] == OFFICIAL[model]


def test_encodings_that_cannot_hold_the_experts_are_left_out() -> None:
    listed = {row["encoding"] for row in diagnose("cpu")["models"]["20b"]}
    # 2,880 columns are no whole number of blocks of 256 or 128.
    assert set(ENCODINGS) - listed == {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MLX_Q4_G128", "MLX_Q8_G128"}


def test_few_and_many_tokens_are_told_apart_where_it_matters() -> None:
    report = diagnose("sm_75")
    rows = paths(report, "MXFP4")
    assert set(rows) == {"few", "many"}
    assert (rows["few"]["used_bytes_per_weight"], rows["many"]["used_bytes_per_weight"]) == (0.53125, 2)
    assert set(paths(report, "Q2_K")) == {"any"}
    text = "\n".join(doctor_lines(report))
    assert "up to 4 tokens" in text
    assert "costs  2 bytes per weight of an expert while it is multiplied, where 0.53 are stored" in text


def test_a_decoded_expert_is_counted_beside_the_weights() -> None:
    on = needs(diagnose("sm_75"), "20b", "MXFP4")["devices"][0]
    assert on["decoded_expert_bytes"] == 3 * 2880 * 2880 * 2
    assert on["bytes"] == OFFICIAL["20b"] + on["decoded_expert_bytes"]
    assert on["fits"] is None


def test_what_fits_is_told_for_the_gpu_and_for_the_machine(with_3090: dict[str, Any]) -> None:
    small, large = (needs(with_3090, model, "MXFP4") for model in OFFICIAL)
    assert (small["devices"][0]["fits"], large["devices"][0]["fits"]) == (True, False)
    assert (small["fits_memory"], large["fits_memory"], large["layer_fits_memory"]) == (True, False, True)


def test_the_table_has_a_column_for_each_gpu(with_3090: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(need_table(with_3090))
    head, first, *_ = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.count("sm_86 (25.30 GB)") == head.count("here (64.00 GB)") == 2
    assert first.split("  ")[0] == "MXFP4"
    cells = [cell.strip() for cell in first.split("  ") if cell.strip()]
    assert cells[1:] == [
        "13.76 GB",
        "476.86 MB",
        "fits",
        "fits",
        "65.25 GB",
        "1.75 GB",
        "a layer at a time",
        "too large",
    ]


def test_missing_and_untested_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    assert any("without Triton" in line for line in doctor_lines(diagnose("cpu")))
    monkeypatch.setattr(doctor, "version_of", lambda name: "3.6.0")
    assert any("tested with triton 3.9.0" in line for line in doctor_lines(diagnose("cpu")))


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_shows_the_machine_its_paths_and_what_fits() -> None:
    outcome = command("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("gptoss-convert ")
    assert "numba + torch" in outcome.out
    head, *rows = outcome.out[outcome.out.index("experts in  ") :].splitlines()
    assert head.split()[:2] == ["experts", "in"]
    assert rows[0].split()[:3] == ["MXFP4", "13.76", "GB"]
    assert len(rows) == len(diagnose()["models"]["20b"])


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "cpu", "interpret"])
def test_the_command_knows_every_architecture(arch: str) -> None:
    outcome = command("doctor", "--arch", arch)
    assert outcome.code == 0
    assert f"({arch})" in outcome.out


def test_the_command_gives_the_report_as_json() -> None:
    found, expected = command("doctor", "--arch", "7.5", "--json").json, diagnose("sm_75")
    assert found == json.loads(json.dumps(expected))
    assert found["devices"][0]["arch"] == "sm_75"


def test_the_command_refuses_an_unknown_architecture() -> None:
    refused(command("doctor", "--arch", "sm_1"), "no such architecture in the table", "found 'sm_1'", code=2)
