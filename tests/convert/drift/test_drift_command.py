"""What `drift` does as a whole: its report, its tables, its limits, and what it refuses."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import copy_of, edit_json
from drift_cases import (
    CONFIG_FAULTS,
    FILE_FAULTS,
    changed,
    drifted,
    in_config,
    quantized_gguf,
)
from rich.console import Console
from rich.table import Table
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift.command import Outcome, Running
from gptoss_convert.convert.drift.fail_over import NAMES, Limit, parse_limits
from gptoss_convert.convert.drift.report import decibels, percent
from gptoss_convert.convert.validation.faults import FAULTS, FaultyWeights
from gptoss_convert.formats.errors import UsageError

FAULT = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def shifted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scales of experts are larger by one."""
    return changed(tiny, tmp_path_factory.mktemp("shifted") / "tiny", FILE_FAULTS["scales off by one"])


@pytest.fixture(scope="module")
def outcome(tiny: Path, shifted: Path) -> Outcome:
    return drifted(tiny, shifted)


def printed(tables: list[Table]) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    for table in tables:
        console.print(table)
    return console.export_text()


# --- the report ---


def test_report_is_json_and_says_what_was_compared(outcome: Outcome, tiny: Path, shifted: Path) -> None:
    report = json.loads(json.dumps(outcome.report, allow_nan=False))
    assert (report["a"]["path"], report["b"]["path"]) == (str(tiny), str(shifted))
    assert (report["a"]["layout"], report["depth"]) == ("hf", "tensors")
    assert report["config_differences"] == report["tokenizer_differences"] == report["fail_over"] == []
    assert report["seconds"] > 0


def test_report_has_every_tensor_role_and_layer(outcome: Outcome) -> None:
    report = outcome.report["tensors"]
    assert len(report["tensors"]) == 79
    roles = {row["role"]: row for row in report["roles"]}
    assert (roles["experts"]["tensors"], roles["experts"]["differ"], roles["experts"]["share_changed"]) == (12, 12, 1)
    assert roles["experts"]["relative_error"] == pytest.approx(1)
    assert roles["norm"]["identical_bytes"] == 9
    cells = {(row["layer"], row["role"]): row for row in report["layers"]}
    assert cells[2, "experts"]["differ"] == 3
    assert cells[None, "norm"]["tensors"] == 1
    assert (report["verdict"], report["scale_shifts"]) == ("differs", {"1": 4 * 8 * (320 * 6 + 192 * 5)})


def test_report_locates_the_worst_element_of_a_tensor(outcome: Outcome) -> None:
    one = outcome.report["tensors"]["tensors"]["layers.2.moe.down.weight"]
    assert one["worst"]["value_b"] == 2 * one["worst"]["value_a"]
    assert one["worst"]["stored"] == "model.layers.2.mlp.experts.down_proj_blocks"
    assert one["max_error"] == abs(one["worst"]["value_a"])
    assert one["packed"]["scale_only"] == one["changed"] == one["units"]


def test_report_of_equal_checkpoints_has_no_infinite_number(tiny: Path) -> None:
    report = drifted(tiny, tiny).report
    json.dumps(report, allow_nan=False)
    assert report["figures"] == {"rel": 0, "sqnr": None, "cosine": 1, "changed": 0, "differing": 0}


def test_tables_show_roles_and_the_five_worst_tensors(outcome: Outcome) -> None:
    roles, worst = (printed([table]).splitlines() for table in outcome.tables)
    columns = "role tensors same bytes same values differ changed worst error SQNR"
    assert roles[0].split() == columns.split()
    assert roles[1].split() == ["experts", "12", "12", "100", "%", "100", "%", "0.0", "dB"]
    assert len(worst) == 1 + 5
    assert "_proj_blocks, expert" in worst[1]


def test_equal_checkpoints_have_no_table_of_the_worst(tiny: Path) -> None:
    assert len(drifted(tiny, tiny).tables) == 1


def test_names_that_look_like_markup_are_shown_as_they_are(tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "[red]bold[", FILE_FAULTS["bias of q dropped"])
    assert "self_attn.q_proj.bias" in printed(drifted(tiny, other).tables)


def test_lines_end_with_the_sentence(outcome: Outcome) -> None:
    assert outcome.lines == [outcome.report["tensors"]["sentence"]]


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "100 %"), (0.99999999, "99.99 %"), (0.5, "50 %"), (1e-7, "1.0e-05 %")]
)
def test_share_is_all_or_nothing_only_if_it_is(share: float, text: str) -> None:
    assert percent(share) == text


def test_decibels_may_be_infinite() -> None:
    assert [decibels(value) for value in (math.inf, -math.inf, 31.46, -0.001)] == ["∞", "-∞", "31.5 dB", "0.0 dB"]


# --- configs and tokenizers ---


def test_tokenizers_that_differ_are_told_by_key(tiny: Path, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    edit_json(other / "tokenizer.json", lambda content: content["model"]["merges"].pop())
    found = drifted(tiny, other)
    assert [one["key"] for one in found.report["tokenizer_differences"]] == ["merges", "chat_template"]
    assert "note: their tokenizers differ in chat_template: 2,799 characters and 14 characters" in found.lines


def test_token_that_is_another_is_named(tiny: Path, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / "other")

    def edit(content: dict[str, Any]) -> None:
        next(token for token in content["added_tokens"] if token["id"] == 390)["content"] = "<|other|>"

    edit_json(other / "tokenizer.json", edit)
    (difference,) = drifted(tiny, other).report["tokenizer_differences"]
    assert (difference["key"], difference["b"]) == ("special tokens, 390", "'<|other|>'")


def test_tokenizer_that_is_missing_or_damaged_is_told_and_stops_nothing(tiny: Path, tmp_path: Path, ways: Ways) -> None:
    damaged = copy_of(tiny, tmp_path / "damaged")
    (damaged / "tokenizer.json").write_text("{", encoding="utf-8")
    (difference,) = drifted(tiny, damaged).report["tokenizer_differences"]
    assert difference["b"].startswith("unreadable (")
    (difference,) = drifted(tiny, ways.path("original")).report["tokenizer_differences"]
    assert (difference["key"], difference["a"], difference["b"]) == ("tokenizer", "there", "none")


@pytest.mark.parametrize("layout", ["gguf", "ollama-legacy", "mlx", "bf16"])
def test_layouts_that_hold_the_whole_tokenizer_give_no_note(layout: str, ways: Ways) -> None:
    assert drifted(ways.start, ways.path(layout)).report["tokenizer_differences"] == []


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_configs_that_differ_are_in_the_report(fault: str, tiny: Path, tmp_path: Path) -> None:
    key, change = CONFIG_FAULTS[fault]
    other = copy_of(tiny, tmp_path / "other")
    in_config(key, change)(other)
    (difference,) = drifted(tiny, other).report["config_differences"]
    assert difference["key"] == key
    assert difference["a"] != difference["b"]


# --- limits ---


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ("rel=0.5", ["rel"]),
        ("rel=1.5", []),
        ("sqnr=30", ["sqnr"]),
        ("sqnr=-1", []),
        ("changed=0.1, differing=12", ["changed"]),
        ("differing=11,cosine=0.9", ["differing"]),
        ("rel=0,sqnr=inf", ["rel", "sqnr"]),
    ],
)
def test_limit_is_passed_on_its_wrong_side(limits: str, names: list[str], tiny: Path, shifted: Path) -> None:
    found = drifted(tiny, shifted, fail_over=limits)
    assert [one.limit.name for one in found.passed] == names
    assert [one["name"] for one in found.report["fail_over"] if one["passed"]] == names
    assert len([line for line in found.lines if line.startswith("over the limit: ")]) == len(names)


def test_equal_checkpoints_pass_no_limit(tiny: Path) -> None:
    assert drifted(tiny, tiny, fail_over="rel=0,changed=0,differing=0,sqnr=1000,cosine=1").passed == ()


def test_figure_that_is_no_number_passes_every_limit() -> None:
    assert all(Limit(name, 0.5).is_passed(math.nan) for name in NAMES)


@pytest.mark.parametrize(
    ("text", "depth", "message"),
    [
        ("speed=1", "tensors", "a figure that is not known; expected one of rel, changed"),
        ("", "tensors", "not known.*found ''"),
        ("rel=0.1,rel=0.2", "tensors", "a figure twice"),
        ("kl=0.01", "tensors", "that --depth tensors does not measure; expected one of rel.*Add --depth logits"),
        ("sqnr=30", "logits", "that --depth logits does not measure.*Add --depth tensors"),
        ("rel", "tensors", "not a number; expected NAME=NUMBER; found ''"),
        ("rel=much", "tensors", "not a number.*found 'much'"),
        ("rel=nan", "tensors", "not a number"),
    ],
)
def test_limits_that_are_none_are_refused(text: str, depth: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_limits(text, depth)


# --- what is refused ---


@pytest.mark.parametrize("depth", ["tensors", "layers", "logits"])
def test_models_of_two_shapes_are_refused_by_key_and_both_values(depth: str, tiny: Path, tmp_path: Path) -> None:
    from gptoss_convert.convert.demo import plan_demo
    from gptoss_convert.convert.run import run

    run(plan_demo(tmp_path / "three", layers=3))
    with pytest.raises(UsageError, match=r"key 'num_hidden_layers'.*expected 4, as in .*tiny; found 3\..*inspect"):
        drifted(tiny, tmp_path / "three", depth=depth)


def test_unknown_depth_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match="depth is unknown; expected --depth tensors, layers, logits; found 'bytes'"):
        drifted(tiny, tiny, depth="bytes")


@pytest.mark.parametrize(
    "running", [Running(consumer="llama.cpp"), Running(prompts=Path("x")), Running(noise=False)], ids=str
)
def test_options_that_run_a_model_are_refused_where_none_runs(running: Running, tiny: Path) -> None:
    with pytest.raises(UsageError, match="runs no model"):
        drifted(tiny, tiny, running=running)


def test_depth_tensors_needs_no_torch() -> None:
    code = (
        "import sys; from gptoss_convert.convert.drift import command, tensors, summary, mixups\n"
        "assert not {'torch', 'numba'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(sys.executable).parent)


# --- the depths that run the models ---


def test_depth_of_logits_reports_configs_and_limits_too(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    other = quantized_gguf(tiny_gguf, tmp_path / "tiny.gguf", "Q4_0")
    running = Running(n_tokens=40, noise=False)
    found = drifted(tiny, other, depth="logits", fail_over="kl=0.0001,top1=0.01,residual=10", running=running)
    assert [one.limit.name for one in found.passed] == ["kl"]
    assert found.report["logits"]
    assert found.report["figures"]["kl"] > 0.0001
    json.dumps(found.report, allow_nan=False)


# Nothing after the layers is in them.
AFTER_THE_LAYERS = ("norm before the logits dropped", "embedding read as unembedding")


@pytest.mark.parametrize("fault", [name for name in FAULT if name not in AFTER_THE_LAYERS])
def test_fault_in_what_is_computed_is_caught_at_depth_layers(fault: str, tiny: Path) -> None:
    from gptoss_convert.convert.drift.layers import compare_layers

    checkpoint, prompts, inject = injected(fault, tiny)
    found = compare_layers(checkpoint, checkpoint, prompts=prompts, noise=False, local=False, inject=inject)
    parts = {"embedding": ("embedding", None), "attention": ("attention", 0)}
    assert found.first is not None
    assert found.first[:2] == parts.get(FAULT[fault].stage, ("experts", 0))


@pytest.mark.parametrize("fault", AFTER_THE_LAYERS)
def test_fault_after_the_layers_is_caught_at_depth_logits(fault: str, tiny: Path) -> None:
    from gptoss_convert.convert.drift.logits import compare_logits

    checkpoint, prompts, inject = injected(fault, tiny)
    found = compare_logits(checkpoint, checkpoint, prompts=prompts, noise=False, inject=inject)
    assert found.layers.is_zero
    assert not found.is_rounding


def injected(fault: str, tiny: Path) -> tuple[Checkpoint, Any, Any]:
    """The model, what to run, and the fault to put into one side."""
    from gptoss_convert.convert.drift.lockstep import Injection
    from gptoss_convert.convert.drift.prompts import make_prompts

    torch.set_num_threads(1)
    one, checkpoint = FAULT[fault], open_checkpoint(tiny)
    inject = Injection(one.config, one.arithmetic, lambda weights: FaultyWeights(weights, one))
    return checkpoint, make_prompts(checkpoint, checkpoint, n_tokens=80), inject
