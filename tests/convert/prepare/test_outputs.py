"""What is written has the bytes that were announced, is proven, and is what the program loads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import nothing_left_in
from llama_cpp import LlamaCpp

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.prepare import choose
from gptoss_convert.convert.prepare import output as module
from gptoss_convert.convert.prepare.choose import PURPOSES
from gptoss_convert.convert.prepare.command import Preparation, carry_out, prepare
from gptoss_convert.convert.prepare.commands import Command
from gptoss_convert.convert.prepare.here import processor_here
from gptoss_convert.convert.prepare.modelfile import modelfile
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.bf16 import Bf16Target
from gptoss_convert.formats.errors import OutputError, UsageError

# Where each is to run, so that this machine has no say; and what is written of a source in BF16.
DEVICES = {"auto": "3090", "ollama": "3090", "llama.cpp": "3090", "lm-studio": "3090", "vllm": "H100"} | {
    "transformers": "3090",
    "mlx": "M4:32",
}
GGUF, OLLAMA = "tiny-mxfp4.gguf", "tiny-ollama/tiny-mxfp4.gguf"
STUDIO = "lm-studio-models/gptoss-convert/tiny/tiny-mxfp4.gguf"
WRITTEN = dict.fromkeys(PURPOSES, GGUF) | {
    "hopper": "tiny-mxfp4",
    "mi300": "tiny-mxfp4",
    "vllm": "tiny-mxfp4",
    "transformers": "tiny-mxfp4",
    "mlx": "tiny-mlx",
    "ollama": OLLAMA,
    "lm-studio": STUDIO,
}
SAMPLE = "<|start|>user<|message|>Why is the sky blue?<|end|><|start|>assistant"


@pytest.fixture(scope="module")
def bf16(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with every tensor in BF16."""
    path = tmp_path_factory.mktemp("bf16") / "tiny"
    run(plan(open_checkpoint(tiny), Bf16Target(path)))
    return path


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of our own are relative to the current directory; nobody has LM Studio."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(module.Path, "home", classmethod(lambda _: tmp_path / "home"))


def prepared(source: Path, purpose: str, out: Path | None = None) -> Preparation:
    return prepare(source, purpose, out, device=DEVICES.get(purpose))


def files(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file()}


def ran(command: Command) -> str:
    """What the command prints, with this Python's programs, one thread, and 4 new tokens instead of 256."""
    program, *arguments = command.arguments
    assert sum(argument.count("256") for argument in arguments) == 1
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *(argument.replace("256", "4") for argument in arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_sizes_announced_are_the_bytes_written(bf16: Path, purpose: str) -> None:
    preparation = prepared(bf16, purpose)
    assert files(Path()) == {}
    manifest = carry_out(preparation)
    assert manifest is not None and manifest.verdict is not None  # noqa: PT018
    assert manifest.verdict.holds
    assert preparation.output.path == Path(WRITTEN[purpose])
    assert files(Path()) == dict(preparation.output.sizes)
    assert preparation.output.n_bytes == sum(files(Path()).values())


@pytest.mark.parametrize("purpose", ["ollama", "llama.cpp", "lm-studio", "vllm", "transformers", "mlx"])
def test_a_packed_source_is_written_with_the_bytes_announced(tiny: Path, tmp_path: Path, purpose: str) -> None:
    out = tmp_path / "work" / ("out.gguf" if purpose == "llama.cpp" else "out")
    preparation = prepared(tiny, purpose, out)
    carry_out(preparation)
    assert files(tmp_path / "work") == dict(preparation.output.sizes)


def test_ollama_gets_a_modelfile_without_template_or_parser(tiny: Path) -> None:
    carry_out(prepare(tiny, "ollama", device="3090", context=32_768))
    assert Path("tiny-ollama/Modelfile").read_text().splitlines()[1:] == [
        "FROM ./tiny-mxfp4.gguf",
        "REQUIRES 0.30.0",
        "PARAMETER num_ctx 32768",
        "PARAMETER temperature 1",
        "PARAMETER top_p 1",
    ]


def test_what_ollama_gets_carries_the_chat_template(tiny: Path) -> None:
    carry_out(prepared(tiny, "ollama"))
    written = open_checkpoint(Path(OLLAMA)).tokenizer
    assert written is not None
    template = written.facts().template
    assert template is not None
    assert template.sha256 == hashlib.sha256((tiny / "chat_template.jinja").read_bytes()).hexdigest()


def test_a_modelfile_cannot_name_two_lines() -> None:
    with pytest.raises(UsageError, match="line break"):
        modelfile("a\nPARSER harmony", 4096)


def test_a_gguf_that_ollama_reads_needs_only_a_modelfile(tiny_gguf: Path) -> None:
    preparation = prepared(tiny_gguf, "ollama")
    assert carry_out(preparation) is None
    assert files(Path()) == dict(preparation.output.sizes)
    assert f"FROM {tiny_gguf.resolve()}\n" in Path("tiny-ollama/Modelfile").read_text()
    assert preparation.commands[0].arguments == ("ollama", "create", "tiny", "-f", str(Path("tiny-ollama/Modelfile")))
    with pytest.raises(OutputError, match="exists already"):
        carry_out(preparation)


@pytest.mark.parametrize("purpose", ["vllm", "transformers", "hopper"])
def test_an_official_directory_is_read_as_it_is(tiny: Path, purpose: str) -> None:
    preparation = prepared(tiny, purpose)
    assert (preparation.output.plan, preparation.output.path, preparation.output.sizes) == (None, tiny, [])
    assert str(tiny) in preparation.commands[0].arguments
    assert carry_out(preparation) is None
    assert files(Path()) == {}


@pytest.mark.parametrize("purpose", ["llama.cpp", "lm-studio"])
def test_a_gguf_is_read_as_it_is(tiny_gguf: Path, purpose: str) -> None:
    preparation = prepared(tiny_gguf, purpose)
    assert (preparation.output.plan, preparation.output.path) == (None, tiny_gguf)


def test_llama_cpp_loads_what_it_is_given(tiny: Path) -> None:
    preparation = prepared(tiny, "cpu")
    carry_out(preparation)
    arguments = preparation.commands[0].arguments
    with LlamaCpp(Path(arguments[arguments.index("-m") + 1])) as model:
        assert model.next_tokens(SAMPLE, 3)


def test_transformers_runs_the_command_that_is_printed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "machine_here", processor_here)
    preparation = prepare(tiny, "transformers")
    assert "Why is the sky blue?" in ran(preparation.commands[0])


def test_mlx_runs_the_command_that_is_printed(tiny: Path) -> None:
    preparation = prepared(tiny, "mlx")
    carry_out(preparation)
    assert "Generation: " in ran(preparation.commands[0])


def test_lm_studios_own_directory_is_used_where_there_is_one(tiny: Path, tmp_path: Path) -> None:
    models = tmp_path / "home" / ".lmstudio" / "models"
    models.mkdir(parents=True)
    preparation = prepared(tiny, "lm-studio")
    assert preparation.output.path == models / "gptoss-convert" / "tiny" / "tiny-mxfp4.gguf"
    assert [command.arguments[1] for command in preparation.commands] == ["load"]


def test_directories_that_were_made_are_removed_if_nothing_is_written(tiny: Path, tmp_path: Path) -> None:
    preparation = prepared(tiny, "lm-studio")
    (tmp_path / "work" / "lm-studio-models").write_text("in the way")
    with nothing_left_in(tmp_path), pytest.raises(OutputError, match="cannot be made"):
        carry_out(preparation)


def test_a_full_disk_is_refused_and_nothing_is_left(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation = prepared(tiny, "lm-studio")
    monkeypatch.setattr("gptoss_convert.convert.staging.free_bytes", lambda _: 1000)
    with nothing_left_in(tmp_path), pytest.raises(OutputError, match="too little free space"):
        carry_out(preparation)


@pytest.mark.parametrize(("purpose", "out", "problem"), [("llama.cpp", "x", "ends in .gguf"),
    ("lm-studio", "x.gguf", "in directories")])  # fmt: skip
def test_an_output_of_the_wrong_kind_is_refused(tiny: Path, purpose: str, out: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        prepared(tiny, purpose, Path(out))


@pytest.mark.parametrize(
    ("path", "model_name", "name"),
    [("models/gpt oss (tuned)", None, "gpt-oss--tuned"), ("openai/x@main", "openai/gpt-oss-20b", "gpt-oss-20b"),
     ("a/gpt-oss-20b-mxfp4.gguf", None, "gpt-oss-20b"), ("...", None, "gpt-oss")],
)  # fmt: skip
def test_a_model_is_named_in_letters_that_files_may_have(
    tiny: Path, path: str, model_name: str | None, name: str
) -> None:
    checkpoint = replace(open_checkpoint(tiny), path=Path(path), model_name=model_name)
    assert module.short_name(checkpoint) == name


def test_more_context_than_the_model_has_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match="--context 1 to 131072; found --context 131073"):
        prepare(tiny, "ampere", context=131_073)
