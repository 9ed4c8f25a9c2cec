"""Options are the same everywhere, and their help can be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from enum import Enum
from unittest import mock

import pytest
import typer
from command_line import command
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from gptoss_convert.convert.cli import app

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
