"""What `--json` prints is what docs/json.md says: every key, its type, and nothing else; and it is JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from checkpoints import EMBEDDING, ROUTER, copy_of, edit_json, patch
from command_line import command
from drift_cases import FILE_FAULTS, changed, in_config, on, together
from hub_server import hub_server
from json_keys import Seen, faults, read_tables, unseen

from gptoss_convert.convert import doctor
from gptoss_convert.convert.hub import fetch
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.prepare import choose
from gptoss_convert.convert.prepare import command as preparation
from gptoss_convert.convert.prepare.commands import Command
from gptoss_convert.convert.prepare.machines import APPLE, OTHER, Machine
from gptoss_convert.convert.validation import command as validation
from gptoss_convert.convert.validation import self_test
from gptoss_convert.formats.errors import CodecError
from gptoss_convert.kernels import device

TABLES = read_tables()
GIB = 1 << 30


class Desk:
    """Models to run commands on, each made when it is first asked for, and paths that are free."""

    def __init__(self, directory: Path, tiny: Path, gguf: Path) -> None:
        self.directory, self._made = directory, {"tiny": tiny, "gguf": gguf}

    def __getitem__(self, name: str) -> Path:
        if name not in self._made:
            self._made[name] = self.new()
            MODELS[name](self, self._made[name])
        return self._made[name]

    def new(self) -> Path:
        """A path alone in a directory."""
        directory = self.directory / str(len(list(self.directory.iterdir())))
        directory.mkdir()
        return directory / "out"

    def words(self, line: str) -> list[str]:
        """The words of a command in which {name} is a model and {} a path that is free."""

        def path(found: re.Match[str]) -> str:
            return str(self[found[1]] if found[1] else self.new())

        return [re.sub(r"\{(\w*)\}", path, word) for word in line.split()]


Make = Callable[[Desk, Path], object]


def _by(line: str) -> Make:
    """What a command writes."""
    return lambda desk, path: command(*desk.words(f"{line} --quiet".replace("OUT", str(path))))


def _with(change: Callable[[dict[str, Any]], object], source: str = "tiny") -> Make:
    """A copy whose tensors are others."""
    return lambda desk, path: changed(desk[source], path, change)


def _other(desk: Desk, path: Path) -> None:
    """An embedding of zeros, another limit and `truncate`, and two other chat templates."""
    changed(desk["tiny"], path, on(EMBEDDING, np.zeros_like))
    in_config("rope_scaling.truncate", lambda _value: True)(path)
    in_config("swiglu_limit", lambda value: value - 0.5)(path)
    (path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    edit_json(path / "tokenizer_config.json", lambda config: config.update(chat_template="{{ other }}"))


def _bare(desk: Desk, path: Path) -> None:
    """Nothing of the tokenizer but a config that names no token."""
    copy_of(desk["tiny"], path)
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "special_tokens_map.json"):
        (path / name).unlink(missing_ok=True)
    (path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    edit_json(path / "config.json", lambda config: [config.pop(f"{role}_token_id", None) for role in ("eos", "pad")])


MODELS: dict[str, Make] = {
    "other": _other,
    "bare": _bare,
    "bf16": _by("to-bf16 {tiny} OUT"),
    "original": _by("to-mxfp4 {tiny} OUT --layout original"),
    "legacy": _by("to-gguf {tiny} OUT --dialect ollama-legacy"),
    "large": _by("make-demo OUT --preset 120b --sparse"),
    "retrained": _with(on("model.layers.2.mlp.experts.down_proj", lambda values: 1.2 * values), "bf16"),
    "swapped": _with(FILE_FAULTS["gate and up swapped"]),
    "shifted": _with(FILE_FAULTS["scale of one block off by one"]),
    "biased": _with(together(FILE_FAULTS["bias of q dropped"], FILE_FAULTS["bias of v dropped"])),
    "nan": lambda desk, path: patch(copy_of(desk["tiny"], path), ROUTER, 0, b"\xc0\x7f"),
    "keyless": lambda desk, path: edit_json(
        copy_of(desk["tiny"], path) / "config.json", lambda config: config.pop("sliding_window")
    ),
    "prompt": lambda _desk, path: path.write_text("How far is it to the sea?\n", encoding="utf-8"),
}


def _always(value: object) -> Callable[..., object]:
    return lambda *_arguments, **_options: value


def _raises(*_arguments: object) -> NoReturn:
    raise CodecError("a row is not a whole number of blocks")


Instead = tuple[tuple[Any, str, object], ...]
A_CARD = Machine("a card", OTHER, "sm_86", host_bytes=32 * GIB)
A_MAC = Machine("M3", APPLE, memory_bytes=16 * GIB, wired_bytes=12 * GIB)
A_COMMAND = Command("serve", ("ollama", "serve"), (("OLLAMA_KV_CACHE_TYPE", "q8_0"),))

# What is rare on the machine that runs the tests.
NOTHING_INSTALLED: Instead = tuple(
    (module, name, _always(None)) for module in (doctor, device) for name in ("version_of", "memory_bytes")
)
BAD_KERNELS: Instead = (
    (self_test, "FAULTS", self_test.FAULTS[:2]),
    (validation, "kernel_failures", _always(["hf: gate of layer 0 is 12 times beyond rounding"])),
)
A_NOTE: Instead = ((fetch, "require_official", _always(["config.json is another now."])),)
ON_A_CARD: Instead = ((choose, "machine_here", _always(A_CARD)),)
ON_A_MAC: Instead = ((choose, "machine_here", _always(A_MAC)),)
MEASURED: Instead = (
    (preparation, "PROBE_BYTES", 0),
    (preparation, "write_rate", _always(1e9)),
    (preparation, "commands", _always([A_COMMAND])),
)


OUR_BUG: Instead = ((doctor, "diagnose", _raises),)


@dataclass(frozen=True)
class Case:
    """A command, the table of its report, its exit code, and what is other than it is: (object, name, value)."""

    table: str
    line: str
    code: int = 0
    instead: Instead = ()


_DRIFT = "drift {tiny} {%s} --prompts {prompt} --depth %s"
CASES = [
    Case("checkpoint", "inspect {tiny}"),
    Case("checkpoint", "inspect {gguf} --tensors"),
    Case("checkpoint", "inspect {other}"),
    Case("checkpoint", "inspect {bare}"),
    Case("checkpoint", "inspect {original}"),
    Case("checkpoint", "inspect org/tiny", 0, A_NOTE),
    Case("plan", "to-mxfp4 {tiny} {} --dry-run"),
    Case("plan", "to-metal {tiny} {} --dry-run"),
    Case("plan", "make-demo {} --dry-run"),
    Case("run", "make-demo {} --layers 1"),
    Case("run", "to-gguf {tiny} {} --experts f16"),
    Case("run", "to-gguf {retrained} {} --type f16"),
    Case("run", "to-mlx {tiny} {} --no-verify"),
    Case("run", "to-bf16 {tiny} {}"),
    Case("run", "to-metal {tiny} {}"),
    Case("run", "to-mxfp4 {bf16} {}"),
    Case("run", "to-mxfp4 {retrained} {} --like {tiny}"),
    Case("preparation", "prepare {tiny} {}.gguf --for llama.cpp --device T4"),
    Case("preparation", "prepare {tiny} {} --for mlx --dry-run"),
    Case("preparation", "prepare {tiny} --for vllm --device H100"),
    Case("preparation", "prepare {large} {}.gguf --for llama.cpp --device 3090 --dry-run"),
    Case("preparation", "prepare {large} {} --for ollama --device 3090 --dry-run"),
    Case("preparation", "prepare {tiny} {}.gguf --dry-run", 0, ON_A_CARD),
    Case("preparation", "prepare {tiny} {}.gguf --for llama.cpp --dry-run", 0, (*ON_A_MAC, *MEASURED)),
    Case("validation", "validate {tiny} --tokens 40 --layers 0"),
    Case("validation", "validate {other} {tiny} --tokens 40", 1),
    Case("validation", "validate {tiny} {shifted} --tokens 40", 1),
    Case("validation", "validate {tiny} {biased} --tokens 40 --layers 0", 1),
    Case("self-test", "validate --self-test", 1, BAD_KERNELS),
    Case("drift", "drift {tiny} {gguf}"),
    Case("drift", "drift {other} {tiny} --fail-over rel=1,differing=5", 3),
    Case("drift", "drift {tiny} {swapped}"),
    Case("drift", "drift {legacy} {biased}"),
    Case("drift", _DRIFT % ("other", "layers")),
    Case("drift", _DRIFT % ("tiny", "layers --no-noise")),
    Case("drift", _DRIFT % ("biased", "logits")),
    Case("drift", _DRIFT % ("tiny", "logits --no-noise")),
    Case("doctor", "doctor"),
    Case("doctor", "doctor --arch sm_75"),
    Case("doctor", "doctor", 0, NOTHING_INSTALLED),
    Case("failure", "inspect {}", 1),
    Case("failure", "inspect {keyless}", 1),
    Case("failure", "drift {tiny} {nan}", 1),
    Case("failure", "to-gguf {tiny} {gguf}", 1),
    Case("failure", "validate", 2),
    Case("failure", "doctor", 1, OUR_BUG),
]

Report = Callable[[Case], dict[str, Any]]


def no_json(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def report_of(tiny: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """Runs each case once; its Hub has the repository org/tiny."""
    torch.set_num_threads(1)
    desk = Desk(tmp_path_factory.mktemp("desk"), tiny, tiny_gguf)

    @cache
    def report(case: Case) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patches:
            for place, name, value in case.instead:
                patches.setattr(place, name, value)
            outcome = command(*desk.words(case.line), "--json")
        assert (outcome.code, outcome.err) == (case.code, ""), outcome.out[-2000:]
        value = json.loads(outcome.out, parse_constant=no_json)
        assert isinstance(value, dict)
        return value

    with hub_server(tiny=tiny) as server, pytest.MonkeyPatch.context() as patches:
        patches.setattr(Hub, "from_environment", _always(Hub(server.url, tmp_path_factory.mktemp("cache"))))
        yield report


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_report_is_as_the_page_says(case: Case, report_of: Report) -> None:
    assert "\n".join(dict.fromkeys(faults(report_of(case), case.table, TABLES, Seen()))) == ""


def test_everything_on_the_page_is_printed(report_of: Report) -> None:
    seen = Seen()
    for case in CASES:
        assert set(faults(report_of(case), case.table, TABLES, seen)) == set()
    assert "\n".join(sorted(set(unseen(TABLES, seen)))) == ""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda report: report.update(colour="red"), "Checkpoint: colour is not on the page"),
        (lambda report: report["roles"][0].update(share=0.5), "Role: share is not on the page"),
        (lambda report: report["config"].pop("head_dim"), "Config: head_dim is missing"),
        (lambda report: report["config"]["yarn"].update(factor="32"), "Config: yarn.factor: string, not number"),
        (lambda report: report.update(parameters=1.5), "Checkpoint: parameters: number, not integer"),
        (lambda report: report["notes"].append(None), "Checkpoint: notes[]: null, not string"),
    ],
)
def test_a_key_that_is_new_or_gone_or_of_another_type_is_a_fault(
    change: Callable[[dict[str, Any]], object], fault: str, report_of: Report
) -> None:
    report = json.loads(json.dumps(report_of(CASES[0])))
    change(report)
    assert list(faults(report, "checkpoint", TABLES, Seen())) == [fault]


def test_what_no_report_shows_is_a_fault(report_of: Report) -> None:
    seen = Seen()
    assert not list(faults(report_of(CASES[0]), "checkpoint", TABLES, seen))
    missing = set(unseen(TABLES, seen))
    assert {
        "Checkpoint: tensors: never list",
        "Checkpoint: tokenizer: never null",
        "Run: seconds: never number",
    } <= missing
    assert "Checkpoint: path: never string" not in missing
    assert "Checkpoint: tensors: never missing" not in missing


@pytest.mark.parametrize("limit", ["rel=inf", "sqnr=-inf", "cosine=-1e999"])
def test_infinite_limit_is_null(limit: str, tiny: Path) -> None:
    outcome = command("drift", tiny, tiny, "--fail-over", limit, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out, parse_constant=no_json)["fail_over"][0]["limit"] is None
