"""The command line: what it says where, what it leaves alone, and what it does not import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import copy_of, edit_json, edit_tensors, nothing_left_in
from command_line import command, process

from gptoss_convert import __version__
from gptoss_convert.convert.demo import plan_demo

# --- what is imported ---

HEAVY = ("torch", "transformers", "triton", "numba", "gguf", "huggingface_hub")

IMPORTS = """
import sys
sys.argv = ["gptoss-convert", *sys.argv[1:]]
from gptoss_convert.convert.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
sys.stderr.write("\\n" + " ".join(sorted({name.partition(".")[0] for name in sys.modules})))
sys.exit(code)
"""


def modules_after(*arguments: str | Path) -> set[str]:
    """Top-level modules that a command has imported when it ends well."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *map(str, arguments)], capture_output=True, encoding="utf-8", check=True
    )
    return set(done.stderr.splitlines()[-1].split())


HELP = [["--help"], ["inspect", "--help"], ["to-gguf", "--help"], ["make-demo", "-h"], ["--version"]]


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    imported = modules_after(*arguments)
    assert "typer" in imported
    assert imported.isdisjoint({*HEAVY, "numpy"})


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_inspect_imports_nothing_heavy(layout: str, tiny: Path, tiny_gguf: Path) -> None:
    imported = modules_after("inspect", tiny if layout == "hf" else tiny_gguf)
    assert imported.isdisjoint({"torch", "transformers", "triton", "numba", "huggingface_hub"})


def test_conversion_imports_no_torch(tiny: Path, tmp_path: Path) -> None:
    imported = modules_after("to-gguf", tiny, tmp_path / "tiny.gguf")
    assert imported.isdisjoint({"torch", "transformers", "triton"})


def test_package_imports_none_of_its_modules_until_they_are_used() -> None:
    code = "import sys; before = set(sys.modules); import gptoss_convert; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    imported = set(done.stdout.split())
    assert {name for name in imported if name.startswith("gptoss_convert")} == {"gptoss_convert"}
    assert {name.partition(".")[0] for name in imported} - {"gptoss_convert"} <= sys.stdlib_module_names


def test_public_names_are_those_promised() -> None:
    import gptoss_convert

    for name in gptoss_convert.__all__:
        assert getattr(gptoss_convert, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = gptoss_convert.nothing


# --- help and version ---


def test_version_is_the_packages() -> None:
    assert command("--version").out == f"gptoss-convert {__version__}\n"


def test_the_package_run_as_a_module_is_the_command() -> None:
    run = [sys.executable, "-m", "gptoss_convert", "inspect", "nowhere"]
    outcome = subprocess.run(run, capture_output=True, text=True, check=False)
    same = command("inspect", "nowhere")
    assert (outcome.returncode, outcome.stderr) == (same.code, same.err)
    assert outcome.stderr.startswith("error: nowhere: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("inspect", ("SRC", "--json", "--tensors")),
        (
            "to-gguf",
            (
                "SRC",
                "OUT.gguf",
                "--type",
                "--experts",
                "--split-max-size",
                "--dry-run",
                "--no-verify",
                "--force",
                "--quiet",
            ),
        ),
        ("make-demo", ("DIR", "--preset", "tiny|20b|120b", "--layers", "--seed")),
    ],
)
def test_help_names_every_argument(name: str, words: tuple[str, ...]) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert [word for word in words if word not in outcome.out] == []


# --- what is said where ---

JSON_COMMANDS: list[tuple[str, Callable[[Path, Path], list[str | Path]]]] = [
    ("inspect", lambda tiny, out: ["inspect", tiny]),
    ("inspect tensors", lambda tiny, out: ["inspect", tiny, "--tensors"]),
    ("to-gguf", lambda tiny, out: ["to-gguf", tiny, out]),
    ("to-gguf quiet", lambda tiny, out: ["to-gguf", tiny, out, "--quiet"]),
    ("to-gguf dry", lambda tiny, out: ["to-gguf", tiny, out, "--dry-run"]),
    ("to-gguf unverified", lambda tiny, out: ["to-gguf", tiny, out, "--no-verify"]),
    ("make-demo", lambda tiny, out: ["make-demo", out, "--layers", "1"]),
]


@pytest.mark.parametrize("arguments", [row[1] for row in JSON_COMMANDS], ids=[row[0] for row in JSON_COMMANDS])
def test_json_is_one_object_on_standard_output_and_nothing_else(
    arguments: Callable[[Path, Path], list[str | Path]], tiny: Path, tmp_path: Path
) -> None:
    outcome = command(*arguments(tiny, tmp_path / "out"), "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.json


def test_json_of_a_real_process_is_one_object_for_errors_too(tiny: Path, tmp_path: Path) -> None:
    good = process("to-gguf", tiny, tmp_path / "tiny.gguf", "--json")
    bad = process("to-gguf", tiny, tmp_path / "tiny.gguf", "--json")
    assert (good.code, good.err, good.json["verified"]) == (0, "", True)
    assert (bad.code, bad.err, bad.json["error"]["kind"]) == (1, "", "OutputError")


def test_progress_goes_to_standard_error_and_the_verdict_to_standard_output(tiny: Path, tmp_path: Path) -> None:
    outcome = command("to-gguf", tiny, tmp_path / "tiny.gguf")
    assert outcome.says("writing 3.12 MB", "writing done", "verifying 3.17 MB", "verifying done", "note: ")
    wrote, verified = outcome.out.splitlines()
    assert wrote.startswith(f"wrote {tmp_path / 'tiny.gguf'}: 3,192,640 bytes in ")
    assert re.fullmatch("verified: .*3,120,096.*, 3,174,336 written; 79 of 79 tensors identical", verified)


def test_unverified_output_is_said_to_be_so(tiny: Path, tmp_path: Path) -> None:
    outcome = command("to-gguf", tiny, tmp_path / "tiny.gguf", "--no-verify")
    assert outcome.out.splitlines()[1] == "not verified (--no-verify)"
    assert command("to-gguf", tiny, tmp_path / "other.gguf", "--no-verify", "--json").json["verified"] is None


@pytest.mark.parametrize("name", ["to-gguf", "make-demo"])
def test_quiet_says_nothing(name: str, tiny: Path, tmp_path: Path) -> None:
    arguments = ["to-gguf", tiny, tmp_path / "out"] if name == "to-gguf" else ["make-demo", tmp_path / "out"]
    outcome = process(*arguments, "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_quiet_still_says_what_failed(tmp_path: Path) -> None:
    outcome = command("to-gguf", tmp_path, tmp_path / "out.gguf", "--quiet")
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("options", [["inspect"], ["to-gguf", "--dry-run"]], ids=" ".join)
def test_terminal_that_lacks_a_character_is_no_failure(
    options: list[str], encoding: str, tiny: Path, tmp_path: Path
) -> None:
    name, *flags = options
    arguments = [name, tiny] if name == "inspect" else [name, tiny, tmp_path / "out.gguf"]
    outcome = process(*arguments, *flags, env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("options", [["inspect"], ["to-gguf", "--dry-run"]], ids=" ".join)
def test_output_that_nobody_can_take_is_one_message(options: list[str], tiny: Path, tmp_path: Path) -> None:
    name, *flags = options
    arguments = [name, tiny] if name == "inspect" else [name, tiny, tmp_path / "out.gguf"]
    outcome = process(*arguments, *flags, stdout="/dev/full")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert "Traceback" not in outcome.err


def test_reader_that_stops_early_is_no_failure_to_speak_of(tiny: Path) -> None:
    script = Path(sys.executable).with_name("gptoss-convert")
    command_line = [str(script), "inspect", str(tiny), "--tensors"]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        reading.stdout.close()
        assert reading.stderr.read() == ""


# --- dry runs ---


@pytest.mark.parametrize(
    "options",
    [[], ["--split-max-size", "500K"], ["--type", "f32", "--experts", "f16"], ["--split-max-size", "1G"]],
    ids=" ".join,
)
def test_dry_run_writes_nothing_and_predicts_every_file(options: list[str], tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    with nothing_left_in(tmp_path):
        dry = command("to-gguf", tiny, out, *options, "--dry-run", "--json").json
    real = command("to-gguf", tiny, out, *options, "--json").json
    predicted = {file["path"]: file["bytes"] for file in dry["files"]}
    assert predicted == {str(path): path.stat().st_size for path in tmp_path.iterdir()}
    assert dry["bytes"] == sum(predicted.values())
    assert dry.items() <= real.items()


def test_dry_run_of_a_demo_writes_nothing_and_predicts_every_file(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    with nothing_left_in(tmp_path):
        dry = command("make-demo", directory, "--layers", "1", "--dry-run", "--json").json
    command("make-demo", directory, "--layers", "1", "--quiet")
    assert {file["path"]: file["bytes"] for file in dry["files"]} == {
        str(path): path.stat().st_size for path in directory.iterdir()
    }


def test_dry_run_shows_files_and_roles_to_people(tiny: Path, tmp_path: Path) -> None:
    outcome = command("to-gguf", tiny, tmp_path / "tiny.gguf", "--dry-run")
    assert f"{tmp_path / 'tiny.gguf'}  3,192,640 bytes" in outcome.out
    assert "GGML_MXFP4" in outcome.out


# --- inspect ---


def test_inspect_tells_the_true_encodings_by_role(tiny: Path) -> None:
    report = command("inspect", tiny, "--json").json
    roles = {row["role"]: row for row in report["roles"]}
    assert (roles["experts"]["encoding"], roles["experts"]["bits_per_weight"]) == ("MXFP4", 4.25)
    assert (roles["attention"]["encoding"], roles["attention"]["bits_per_weight"]) == ("BF16", 16)
    assert sum(row["bytes"] for row in report["roles"]) == report["tensor_bytes"] == 3_120_096
    assert sum(row["parameters"] for row in report["roles"]) == report["parameters"] == 3_725_808
    assert report["bits_per_weight"] == pytest.approx(8 * 3_120_096 / 3_725_808)


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_inspect_tells_special_tokens_and_template(layout: str, tiny: Path, tiny_gguf: Path) -> None:
    facts = command("inspect", tiny if layout == "hf" else tiny_gguf, "--json").json["tokenizer"]
    assert facts["bos"] == {"id": 384, "text": "<|startoftext|>"}
    assert facts["eos"] == {"id": 388, "text": "<|return|>"}
    assert facts["pad"] == {"id": 385, "text": "<|endoftext|>"}
    template = (tiny / "chat_template.jinja").read_text(encoding="utf-8")
    assert facts["template"]["n_chars"] == len(template)
    assert facts["template"]["official"] is False


def test_inspect_shows_the_same_to_people(tiny: Path) -> None:
    text = command("inspect", tiny).out
    for part in (
        "3,725,808",
        "3,120,096 bytes",
        "6.70 bits per weight",
        "79 tensors",
        "<|return|> (388)",
        "MXFP4",
        "4.25",
    ):
        assert part in text


def test_inspect_needs_no_tokenizer(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (checkpoint / name).unlink()
    outcome = command("inspect", checkpoint)
    assert outcome.code == 0
    assert "template     none" in outcome.out


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_tensors_lists_every_stored_array(layout: str, tiny: Path, tiny_gguf: Path) -> None:
    source = tiny if layout == "hf" else tiny_gguf
    listed = command("inspect", source, "--tensors", "--json").json["tensors"]
    text = command("inspect", source, "--tensors").out.splitlines()
    assert len({entry["name"] for entry in listed}) == len(listed) == 79
    for entry in listed:
        (line,) = (line for line in text if line.startswith(entry["name"] + " "))
        assert f"{entry['bytes']:,}" in line
        assert entry["dtype"] in line
        assert line.rstrip().endswith(entry["file"])


def test_names_of_files_are_shown_as_they_are(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    name = "model-[bold]red.safetensors"
    edit_tensors(checkpoint, lambda tensors: [vars(tensor).update(shard=name) for tensor in tensors.values()])
    outcome = command("inspect", checkpoint, "--tensors")
    assert outcome.code == 0
    assert name in outcome.out


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_name_that_is_no_text_is_valid_json(encoding: str, tmp_path: Path) -> None:
    outcome = process("inspect", tmp_path / "caf\udce9", "--json", env={"PYTHONIOENCODING": encoding})
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "\ufffd" not in outcome.out, "not UTF-8"
    assert outcome.json["error"]["kind"] == "CheckpointError"


def test_warnings_of_the_tokenizer_are_shown(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    edit_json(checkpoint / "tokenizer_config.json", lambda config: config.update(chat_template="{{ other }}"))
    assert "warning      tokenizer_config.json holds another chat template" in command("inspect", checkpoint).out


@pytest.mark.skipif(sys.platform == "win32", reason="NTFS would allocate the 65 GB of a file that is only lengthened")
@pytest.mark.parametrize(
    ("preset", "n_tensors", "n_parameters"), [("20b", 459, "20,914,757,184"), ("120b", 687, "116,829,156,672")]
)
def test_inspect_reads_true_shapes_without_their_data(
    preset: str, n_tensors: int, n_parameters: str, tmp_path: Path
) -> None:
    layout = plan_demo(tmp_path / preset, preset).layout
    (tmp_path / preset).mkdir()
    for path, text in layout.texts:
        path.write_bytes(text)
    for file in layout.files:
        with file.path.open("wb") as sparse:
            sparse.write(file.header)
            sparse.truncate(file.n_bytes)
    outcome = command("inspect", tmp_path / preset)
    assert outcome.code == 0, outcome.err
    assert n_parameters in outcome.out
    assert f"{n_tensors} tensors" in outcome.out
    assert "<|return|> (200002)" in outcome.out
    assert len(json.loads(command("inspect", tmp_path / preset, "--tensors", "--json").out)["tensors"]) == n_tensors
