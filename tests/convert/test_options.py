"""Options are the same everywhere, their help can be read, and every mistake ends in what to do next."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from unittest import mock

import pytest
import typer
from checkpoints import ROUTER, copy_of, edit_json, patch
from command_line import command
from hub_server import hub_server
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from gptoss_convert.convert.cli import app
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.validation import runners
from gptoss_convert.formats import errors

CONVERSIONS = ("to-gguf", "to-mxfp4", "to-bf16", "to-mlx", "to-metal")
WRITERS = (*CONVERSIONS, "prepare", "make-demo")
LOOKERS = ("inspect", "validate", "drift", "doctor")

OTHER_MEANING = {
    "--layers": {"make-demo", "validate"},  # how many there are, and which of them are measured
    "--tokens": {"validate", "drift"},  # of the one text, and of each prompt
    "--device": {"validate", "prepare"},  # where layers run now, and what a model is prepared for
}
"""Names that mean one thing in one command and another in the other."""

ORDER = ["--scale-rule", "--like", "--tokenizer", "--pad-vocab"]
ORDER += ["--dry-run", "--no-verify", "--force", "--json", "--quiet"]
"""How options that many commands share follow each other in a command's help; these come last."""

WIDTH = 80


GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = {name: one for name, one in GROUP.commands.items() if isinstance(one, TyperCommand)}


def options(name: str) -> list[TyperOption]:
    return [one for one in COMMANDS[name].params if isinstance(one, TyperOption) and one.name != "help"]


def arguments(name: str) -> list[TyperArgument]:
    return [one for one in COMMANDS[name].params if isinstance(one, TyperArgument)]


def names(name: str) -> set[str]:
    return {one.opts[0] for one in options(name)}


def help_of(name: str, columns: int = WIDTH) -> str:
    with mock.patch.dict(os.environ, {"COLUMNS": str(columns)}):
        outcome = command(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out


def words_of(text: str) -> str:
    """The text without frames and line breaks."""
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", text).split())


# --- one name, one meaning ---


def test_every_command_is_sorted_here() -> None:
    assert set(COMMANDS) == {*WRITERS, *LOOKERS}


def test_options_of_one_name_are_alike_in_every_command() -> None:
    found = defaultdict(list)
    for name in COMMANDS:
        for one in options(name):
            said = (tuple(one.opts), tuple(one.secondary_opts), one.help, one.metavar, repr(one.type), one.default)
            found[one.opts[0]].append((name, said))
    unlike = {option: uses for option, uses in found.items() if len({said for _, said in uses}) > 1}
    assert {option: {name for name, _ in uses} for option, uses in unlike.items()} == OTHER_MEANING


def test_one_meaning_has_one_name() -> None:
    found = defaultdict(set)
    for name in COMMANDS:
        for one in options(name):
            found[one.help].add(one.opts[0])
    assert {text: used for text, used in found.items() if len(used) > 1} == {}


def test_short_forms_are_those_of_help_and_quiet() -> None:
    short = {form: one.opts[0] for name in COMMANDS for one in options(name) for form in one.opts[1:]}
    assert short == {"-q": "--quiet"}


@pytest.mark.parametrize("name", COMMANDS)
def test_shared_options_come_last_and_in_one_order(name: str) -> None:
    found = [one.opts[0] for one in options(name)]
    shared = [one for one in ORDER if one in found]
    assert found[len(found) - len(shared) :] == shared


# --- what every command has ---


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_reports_as_json(name: str) -> None:
    assert "--json" in names(name)


@pytest.mark.parametrize("name", WRITERS)
def test_every_command_that_writes_can_be_tried_and_can_be_quiet(name: str) -> None:
    assert {"--dry-run", "--quiet"} <= names(name)


@pytest.mark.parametrize("name", WRITERS)
def test_the_proof_can_be_left_out_where_there_is_one(name: str) -> None:
    assert ("--no-verify" in names(name)) == (name != "make-demo")


@pytest.mark.parametrize("name", [*CONVERSIONS, "prepare", "validate", "drift"])
def test_the_tokenizer_can_be_given_where_one_is_used(name: str) -> None:
    assert "--tokenizer" in names(name)


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("to-bf16", "make-demo")])
def test_whatever_can_quantize_takes_a_rule_and_a_base(name: str) -> None:
    assert {"--scale-rule", "--like"} <= names(name)


@pytest.mark.parametrize("name", LOOKERS)
def test_commands_that_look_write_nothing(name: str) -> None:
    assert names(name).isdisjoint({"--dry-run", "--force", "--no-verify"})


# --- help ---


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_narrow_terminal(name: str) -> None:
    assert max(map(len, help_of(name).splitlines())) <= WIDTH


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown_word_for_word(name: str) -> None:
    """Rich takes what is in brackets for markup, and leaves it out."""
    text = words_of(help_of(name, columns=300))
    for one in [*options(name), *arguments(name)]:
        assert one.help
        assert one.help in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_one_sentence_that_fits_a_line_of_completion(name: str) -> None:
    """A longer one is broken by typer, and shells then offer its second line as a word."""
    for one in options(name):
        assert one.help
        assert one.help.endswith(".")
        assert len(one.help) < WIDTH - 1, one.help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_default_of_every_option_that_has_one(name: str) -> None:
    text = words_of(help_of(name))
    for one in options(name):
        if one.default not in (None, False):
            value = one.default.value if isinstance(one.default, Enum) else one.default
            assert f"[default: {value}]" in text, one.opts[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_value_whole(name: str) -> None:
    """A list of values in the narrow column is broken in the middle of a word."""
    text = help_of(name)
    for one in options(name):
        for value in getattr(one.type, "choices", ()):
            word = value.value if isinstance(value, Enum) else value
            assert re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", text), f"{one.opts[0]} {word}"


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_are_bare_words(name: str) -> None:
    """Typer sets the brackets of those that may be missing."""
    for one in arguments(name):
        assert one.metavar
        assert re.fullmatch(r"[A-Z]+(\.\w+)?", one.metavar)
        assert one.required == (f"{{{one.metavar}}}" in help_of(name).split("\n\n")[0]), one.metavar


HEAVY = {"torch", "numba", "numpy", "transformers", "triton", "huggingface_hub", "gguf"}

IMPORTS = """
import contextlib, io, json, sys
from gptoss_convert.convert.cli import main
found = {}
for name in sys.argv[1:]:
    sys.argv = ["gptoss-convert", name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    assert "Usage" in out.getvalue()
    found[name] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, *COMMANDS], capture_output=True, encoding="utf-8", check=True)
    found = json.loads(done.stdout)
    assert list(found) == list(COMMANDS)
    assert {name: HEAVY & set(modules) for name, modules in found.items() if HEAVY & set(modules)} == {}


# --- mistakes ---

INSTRUCTION = re.compile(
    r"(?:^|[:;,] (?:or |and )?)(?:add|ask|check|choose|compare|convert|copy|create|download|fetch|get|give|leave|name|"
    r"run|see|use|wait|write)\b|`[^`]+` \w+",
    re.IGNORECASE,
)
"""What a remedy's last sentence holds: a clause that begins with a verb, or a command and what it does."""

MISTAKES = {
    "inspect {nowhere}": "an id such as openai/gpt-oss-20b",
    "inspect {empty}": "config.json",
    "inspect {text}": "config.json",
    "inspect {llama}": "such as openai/gpt-oss-20b",
    "inspect {other_arch}": "such as openai/gpt-oss-20b",
    "inspect {awq}": "the checkpoint it was quantized from",
    "inspect {no_shard}": "missing shards",
    "inspect {cut}": "Download the file again",
    "inspect {cut_gguf}": "fetch or write it again",
    "inspect {split}-00001-of-00004.gguf": "Fetch the missing shard",
    "inspect org/nothing": "Check the spelling",
    "inspect org/tiny@nothing": "@nothing",
    "to-gguf {tiny} {gguf}": "--force",
    "to-gguf {tiny} {empty} --force": "the name of a file",
    "to-gguf {tiny} {nowhere}/out.gguf": "Create",
    "to-mxfp4 {tiny} {llama}": "another directory",
    "to-gguf {original} {new}": "--tokenizer",
    "to-gguf {tiny} {new} --tokenizer {empty}": "tokenizer.json",
    "drift {tiny} {nan}": "",
}
"""What is wrong with files, and what the remedy names. Exit code 1."""

MISSPELT = {
    "inspect hf://name": "openai/gpt-oss-20b",
    "inspect https://huggingface.co/openai": "openai/gpt-oss-20b",
    "to-gguf {tiny} {new} --split-max-size big": "5G",
    "to-gguf {tiny} {new} --like {small}": "Give the checkpoint",
    "to-mxfp4 {metal} {new} --tokenizer {tiny}": "--pad-vocab",
    "make-demo {new} --layers 0": "--layers 1",
    "validate": "Give one",
    "validate {tiny} --self-test": "Give one",
    "validate --self-test --layers 1": "Leave",
    "validate {tiny} --layers 9": "--layers",
    "validate {tiny} --layers first": "--layers 0,1,5",
    "validate {tiny} --tokens 3": "--tokens 129",
    "validate {tiny} --tokens 3000000": "--tokens 129",
    "validate {tiny} --device cuda": "--device cpu",
    "validate {tiny} {small}": "gptoss-convert inspect",
    "drift {tiny} {small}": "gptoss-convert inspect",
    "drift {tiny} {tiny} --fail-over kll=1": "--fail-over kl=0.01",
    "drift {tiny} {tiny} --fail-over rel": "--fail-over kl=0.01",
    "drift {tiny} {tiny} --fail-over kl=1": "--depth logits",
    "drift {tiny} {tiny} --tokens 8": "--depth layers",
    "drift {tiny} {tiny} --depth layers --prompts {nowhere}": "Check the path",
    "drift {tiny} {tiny} --depth layers --prompts {nothing}": "one line of text",
    "drift {tiny} {tiny} --depth layers --tokens 3000000": "--tokens 256",
    "prepare {tiny} --device 3080": "--for auto",
    "prepare {tiny} --device M2:7": "--device 'M2 24'",
    "prepare {tiny} --for vllm --device T4": "--for llama.cpp",
    "prepare {tiny} --for ada --device 3090": "--for ampere",
    "prepare {tiny} --context 3000000": "--context 131072",
    "prepare {tiny} {new} --for llama.cpp": "new.gguf",
    "doctor --arch sm_12": "nvidia-smi",
}
"""What cannot be meant, and what the remedy names. Exit code 2."""

UNPARSED = (
    "to-ggml SRC OUT",
    "to-gguf SRC",
    "to-mxfp4 SRC OUT --layouts hf",
    "prepare SRC --for frog",
)


def _gguf_of(gguf: Path, out: Path, arch: bytes = b"gpt-oss", n_bytes: int | None = None) -> Path:
    """A copy that names another architecture, or ends early."""
    data, key = gguf.read_bytes(), b"general.architecture"
    start = data.index(b"gpt-oss", data.index(key))
    out.write_bytes((data[:start] + arch + data[start + len(arch) :])[:n_bytes])
    return out


@pytest.fixture(scope="module")
def desk(tiny: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of models that are wrong, and of some that are right, by name."""
    root = tmp_path_factory.mktemp("mistakes")
    names = ("nowhere", "new", "empty", "text", "nothing", "original", "small", "metal", "split")
    paths = {name: root / name for name in names} | {"tiny": tiny, "gguf": tiny_gguf}
    paths["empty"].mkdir()
    for name, text in (("text", "This is no model."), ("nothing", "")):
        paths[name].write_text(text, encoding="utf-8")
    for name in ("llama", "awq", "no_shard", "cut", "nan"):
        paths[name] = copy_of(tiny, root / name)
    edit_json(paths["llama"] / "config.json", lambda config: config.update(model_type="llama"))
    edit_json(paths["awq"] / "config.json", lambda config: config.update(quantization_config={"quant_method": "awq"}))
    min(paths["no_shard"].glob("*.safetensors")).unlink()
    shard = min(paths["cut"].glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    patch(paths["nan"], ROUTER, 0, b"\xc0\x7f")
    paths["other_arch"] = _gguf_of(tiny_gguf, root / "other.gguf", b"llama\0\0")
    paths["cut_gguf"] = _gguf_of(tiny_gguf, root / "cut.gguf", n_bytes=-100)
    made = ("make-demo {small} --layers 2", "to-mxfp4 {tiny} {original} --layout original", "to-metal {tiny} {metal}")
    for line in (*made, "to-gguf {tiny} {split}.gguf --split-max-size 1M"):
        assert command(*line.format_map(paths).split(), "--quiet").code == 0
    (root / "split-00002-of-00004.gguf").unlink()
    return paths


@pytest.fixture(scope="module")
def own_hub(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Hub that has org/tiny and nothing else."""
    with hub_server(tiny=tiny) as server, pytest.MonkeyPatch.context() as patches:
        found = Hub(server.url, tmp_path_factory.mktemp("cache"))
        patches.setattr(Hub, "from_environment", lambda: found)
        yield


def remedied(line: str, desk: dict[str, Path], code: int) -> str:
    """The remedy of the error that the command ends in: the end of its message, and an instruction."""
    words = line.format_map(desk).split()
    outcome = command(*words)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert "Traceback" not in outcome.err
    error = command(*words, "--json").json["error"]
    assert outcome.err.rstrip().endswith(error["message"])
    remedy = str(error["remedy"])
    assert error["message"].endswith(remedy)
    assert INSTRUCTION.search(re.split(r"(?<=[.?]) (?=[A-Z`])", remedy)[-1]), remedy
    return remedy


@pytest.mark.parametrize("line", MISTAKES)
@pytest.mark.usefixtures("own_hub")
def test_error_of_a_file_ends_with_what_to_do(line: str, desk: dict[str, Path]) -> None:
    assert MISTAKES[line] in remedied(line, desk, 1)


@pytest.mark.parametrize("line", MISSPELT)
def test_error_of_an_option_ends_with_what_to_do(
    line: str, desk: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_why_no_gpu", lambda: "torch sees no GPU")
    assert MISSPELT[line] in remedied(line, desk, 2)


def test_hub_that_cannot_be_reached_ends_with_what_to_do(
    desk: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Hub(f"http://127.0.0.1:{free.getsockname()[1]}", tmp_path, wait=lambda _seconds: None)
    monkeypatch.setattr(Hub, "from_environment", lambda: nobody)
    assert "run the same command again" in remedied("inspect org/tiny", desk, 1)


@pytest.mark.parametrize("line", UNPARSED)
def test_line_that_cannot_be_parsed_names_the_help(line: str) -> None:
    outcome = command(*line.split())
    name = line.split()[0]
    assert (outcome.code, outcome.out) == (2, "")
    assert f"Try 'gptoss-convert {name} -h' for help.".replace("to-ggml ", "") in words_of(outcome.err)


OUR_OWN = {"convert/stored.py": 2, "model/demo_tokenizer.py": 2}
"""Errors without a remedy, by file: only a mistake of this program can cause them."""


def test_every_error_of_these_folders_has_a_remedy() -> None:
    kinds = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    kinds |= {"HubError", "HubUnreachableError"}
    root, found = Path(errors.__file__).parents[1], defaultdict(int)
    for path in [*(root / "convert").rglob("*.py"), *(root / "model").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_error = isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds
            if is_error and not {"remedy", None} & {keyword.arg for keyword in node.keywords}:
                found[path.relative_to(root).as_posix()] += 1
    assert found == OUR_OWN
