"""Every mistake ends in what to do next, and a refusal that needs no work comes before any other word."""

from __future__ import annotations

import ast
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from checkpoints import ROUTER, SCALES, Tensors, copy_of, edit_json, edit_tensors, nothing_left_in, patch
from command_line import command
from filelock import Timeout
from hub_server import hub_server

from gptoss_convert.convert import staging
from gptoss_convert.convert.hub.server import Hub
from gptoss_convert.convert.validation import runners
from gptoss_convert.formats import errors
from gptoss_convert.formats.containers.gguf_split import plan_gguf_split
from gptoss_convert.formats.containers.gguf_types import F32, MXFP4, ValueType
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import plan_gguf, string, strings, u8, u32
from gptoss_convert.formats.errors import GgufError

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
    "inspect {cut_gguf}": "download it again",
    "inspect {split}-00001-of-00004.gguf": "Download the missing shard",
    "inspect {pickled}": "Download the safetensors",
    "inspect {packed_up}": "Unpack it",
    "inspect {weights}": "Give the directory {tiny}.",
    "inspect {tiny}/config.json": "Give the directory {tiny}.",
    "inspect {one_gguf}": "Give the file {one_gguf}",
    "inspect {cache}": "Give the directory {cache}",
    "inspect {pointer}": "git lfs pull",
    "inspect {nothing}": "Download the file again",
    "inspect org/nothing": "Check the spelling",
    "inspect org/tiny@nothing": "@nothing",
    "to-gguf {tiny} {gguf}": "--force",
    "to-gguf {tiny} {empty} --force": "the name of a file",
    "to-gguf {tiny} {nowhere}/out.gguf": "Create",
    "to-mxfp4 {tiny} {llama}": "another directory",
    "to-gguf {original} {new}": "--tokenizer",
    "to-gguf {tiny} {new} --tokenizer {empty}": "tokenizer.json",
    "to-gguf {tiny} {new} --tokenizer {nowhere}": "that holds tokenizer.json",
    "to-gguf {tiny} {new} --tokenizer {gguf}": "that holds tokenizer.json",
    "to-gguf {tiny} {new} --tokenizer {tiny}/tokenizer.json": "Give the directory {tiny}.",
    "validate {tiny} --tokenizer {nowhere}": "that holds tokenizer.json",
    "drift {tiny} {tiny} --tokenizer {nowhere}": "that holds tokenizer.json",
    "to-gguf {damaged} {new}": "get the weights again",
    "to-mxfp4 {infinite} {new}": "get the weights again",
    "to-mxfp4 {dense} {new} --like {damaged}": "download the file again",
    "inspect gpt-oss-20b": "Did you mean openai/gpt-oss-20b or unsloth/gpt-oss-20b?",
    "inspect openai/gpt-oss-20": "Did you mean openai/gpt-oss-20b",
    "inspect {lama}": "Did you mean {llama}?",
    "inspect {lama}/config.json": "Did you mean {llama}?",
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


def _with_infinity(tensors: Tensors) -> None:
    experts = tensors["model.layers.2.mlp.experts.down_proj"]
    experts.data = b"\x80\x7f" + experts.data[2:]


def _make_what_is_no_checkpoint(tiny: Path, paths: dict[str, Path]) -> None:
    """Pickles, an archive, a pointer of Git LFS, a shard, and directories around what is meant."""
    root = paths["new"].parent
    paths |= {name: root / name for name in ("pickled", "one_gguf", "cache", "packed_up", "pointer")}
    paths["weights"] = min(tiny.glob("*.safetensors"))
    for directory in (paths["pickled"], paths["one_gguf"], snapshot := paths["cache"] / "snapshots" / "6cee5e8"):
        directory.mkdir(parents=True)
    for directory in (paths["pickled"], snapshot):
        shutil.copy(tiny / "config.json", directory)
    (paths["pickled"] / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80\x02}")
    (paths["one_gguf"] / "tiny.gguf").write_bytes(b"GGUF")
    paths["packed_up"].write_bytes(b"PK\3\4 and more")
    paths["pointer"].write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tiny: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of models that are wrong, and of some that are right, by name."""
    root = tmp_path_factory.mktemp("mistakes")
    names = ("nowhere", "new", "empty", "text", "nothing", "original", "small", "metal", "split", "lama", "dense")
    paths = {name: root / name for name in names} | {"tiny": tiny, "gguf": tiny_gguf}
    paths["empty"].mkdir()
    for name, text in (("text", "This is no model."), ("nothing", "")):
        paths[name].write_text(text, encoding="utf-8")
    for name in ("llama", "awq", "no_shard", "cut", "nan", "damaged"):
        paths[name] = copy_of(tiny, root / name)
    edit_json(paths["llama"] / "config.json", lambda config: config.update(model_type="llama"))
    edit_json(paths["awq"] / "config.json", lambda config: config.update(quantization_config={"quant_method": "awq"}))
    min(paths["no_shard"].glob("*.safetensors")).unlink()
    shard = min(paths["cut"].glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    _make_what_is_no_checkpoint(tiny, paths)
    patch(paths["nan"], ROUTER, 0, b"\xc0\x7f")
    patch(paths["damaged"], SCALES, 0, b"\xff")
    paths["other_arch"] = _gguf_of(tiny_gguf, root / "other.gguf", b"llama\0\0")
    paths["cut_gguf"] = _gguf_of(tiny_gguf, root / "cut.gguf", n_bytes=-100)
    made = ("make-demo {small} --layers 2", "to-mxfp4 {tiny} {original} --layout original", "to-metal {tiny} {metal}")
    for line in (*made, "to-bf16 {tiny} {dense}", "to-gguf {tiny} {split}.gguf --split-max-size 1M"):
        assert command(*line.format_map(paths).split(), "--quiet").code == 0
    (root / "split-00002-of-00004.gguf").unlink()
    paths["infinite"] = copy_of(paths["dense"], root / "infinite")
    edit_tensors(paths["infinite"], _with_infinity)
    return paths


@pytest.fixture(scope="module")
def own_hub(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub that has org/tiny and nothing else."""
    with hub_server(tiny=tiny) as server, pytest.MonkeyPatch.context() as patches:
        found = Hub(server.url, tmp_path_factory.mktemp("cache"))
        patches.setattr(Hub, "from_environment", lambda: found)
        yield found


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
    assert MISTAKES[line].format_map(desk) in remedied(line, desk, 1)


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
    assert f"Try 'gptoss-convert {name} -h' for help.".replace("to-ggml ", "") in outcome.err


# --- refusals that need no work ---

TAKEN = {
    "to-gguf {tiny} {gguf}": "--force",
    "to-gguf {tiny} {nowhere}/out.gguf": "Create it first",
    "to-mxfp4 {tiny} {llama}": "another directory",
    "to-mxfp4 {tiny} {llama} --layout original": "another directory",
    "to-bf16 {tiny} {llama}": "another directory",
    "to-mlx {tiny} {llama}": "another directory",
    "to-metal {tiny} {metal}": "--force",
    "make-demo {llama}": "another directory",
    "prepare {tiny} {gguf} --for llama.cpp": "--force",
    "prepare {tiny} {llama} --for mlx": "another directory",
    "prepare {tiny} {llama} --for ollama": "another directory",
}


@pytest.mark.parametrize("line", TAKEN)
def test_output_that_cannot_be_is_refused_before_another_word(line: str, desk: dict[str, Path]) -> None:
    words = line.format_map(desk).split()
    outcome = command(*words)
    assert outcome.code == 1
    assert outcome.err == f"error: {command(*words, '--json').json['error']['message']}\n"
    assert TAKEN[line] in outcome.err


def test_modelfile_that_is_there_is_refused_before_another_word(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("prepare", tiny_gguf, "--for", "ollama", "--quiet").code == 0
    with nothing_left_in(tmp_path):
        outcome = command("prepare", tiny_gguf, "--for", "ollama")
    assert re.fullmatch(r"error: tiny-ollama.Modelfile: the output exists already\. Use --force .*\n", outcome.err)


@pytest.mark.parametrize("line", TAKEN)
def test_dry_run_does_not_mind_what_is_there(line: str, desk: dict[str, Path]) -> None:
    assert command(*line.format_map(desk).split(), "--dry-run").code == 0


@pytest.mark.parametrize("line", ["to-gguf org/tiny {gguf}", "to-mxfp4 {infinite} {llama} --like org/tiny"])
def test_output_that_cannot_be_is_refused_before_a_download(line: str, desk: dict[str, Path], own_hub: Hub) -> None:
    outcome = command(*line.format_map(desk).split())
    assert (outcome.code, outcome.out) == (1, "")
    assert "the output exists already" in outcome.err
    assert list(own_hub.cache.rglob("*.safetensors")) == []


class NoLock:
    """A directory that takes no file, as /proc: the lock on a file in it is refused as if another run had it."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path

    def __enter__(self) -> None:
        raise Timeout(str(self.path))

    def __exit__(self, *_error: object) -> None: ...


def test_directory_that_takes_no_lock_is_not_taken_for_another_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "FileLock", NoLock)
    outcome = command("to-gguf", tiny, tmp_path / "out.gguf")
    assert outcome.says(f"{tmp_path} takes none", "Choose a directory that you may write to.")
    (tmp_path / "out.gguf.partial.lock").touch()
    assert command("to-gguf", tiny, tmp_path / "out.gguf").says("another run is writing it")


# --- none is without ---

BY_READER_OR_WRITER = {f"formats/containers/gguf_{name}.py" for name in ("reader", "types", "values", "writer")}
"""Where errors are made that `read_gguf` or `plan_gguf` gives what to do: it differs."""


def test_every_error_has_a_remedy() -> None:
    """A kind of error may be an argument, too: then it is called `error` or `kind`."""
    kinds = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    kinds |= {"HubError", "HubUnreachableError", "error", "kind"}
    root, without = Path(errors.__file__).parents[1], set()
    for path in chain.from_iterable((root / name).rglob("*.py") for name in ("formats", "model", "kernels", "convert")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds:
                given = [one.value for one in node.keywords if one.arg in ("remedy", None)]
                if not given or any(isinstance(value, ast.Constant) and not value.value for value in given):
                    without.add(path.relative_to(root).as_posix())
    assert without == BY_READER_OR_WRITER


UNWRITABLE: dict[str, Callable[[], object]] = {
    "a key is empty": lambda: plan_gguf({"": u8(0)}, []),
    "does not fit the type U8": lambda: plan_gguf({"k": u8(256)}, []),
    "not valid Unicode": lambda: plan_gguf({"k": string("\ud800")}, []),
    "element type cannot be stored": lambda: plan_gguf({"k": GgufValue(ValueType.ARRAY, [])}, []),
    "a list of strings is wanted": lambda: plan_gguf({"k": strings("one")}, []),
    "another alignment": lambda: plan_gguf({"general.alignment": u32(64)}, []),
    "a power of two": lambda: plan_gguf({}, [], alignment=24),
    "the same name": lambda: plan_gguf({}, [("t", F32, (1,)), ("t", F32, (1,))]),
    "not a whole number of MXFP4 blocks": lambda: plan_gguf({}, [("t", MXFP4, (1, 33))]),
    "the tensor is empty": lambda: plan_gguf_split({}, [("t", F32, (0,))], 1000),
}


@pytest.mark.parametrize("problem", UNWRITABLE)
def test_what_no_gguf_can_hold_has_a_remedy(problem: str) -> None:
    with pytest.raises(GgufError, match=problem) as caught:
        UNWRITABLE[problem]()
    assert caught.value.remedy == "GGUF files cannot hold it: choose another target."


def test_text_that_is_found_damaged_late_has_a_remedy() -> None:
    with pytest.raises(GgufError, match="the string is not UTF-8") as caught:
        _ = GgufValue(ValueType.STRING, b"\xff").value
    assert str(caught.value.remedy).startswith("The file is damaged")
