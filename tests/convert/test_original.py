"""OpenAI's `original/` layout, both ways: the same bytes, the official names, sizes and digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from checkpoints import copy_of, edit_json
from command_line import command, refused

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import synthetic_checkpoint
from gptoss_convert.convert.targets.hf import HfTarget
from gptoss_convert.convert.targets.original import OriginalTarget
from gptoss_convert.formats.errors import ConfigError
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from gptoss_convert.model.layouts import original


@pytest.fixture(scope="module")
def original_tiny(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original") / "original"
    succeeds("to-mxfp4", tiny, out, "--layout", "original")
    return out


def succeeds(*arguments: str | Path) -> None:
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_byte_identical_from_hf_to_original_and_back(tiny: Path, original_tiny: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    succeeds("to-mxfp4", original_tiny, back, "--shard-plan", "1M", "--tokenizer", tiny)
    assert contents(back) == contents(tiny)


def test_byte_identical_gguf_from_hf_and_from_original(
    tiny: Path, tiny_gguf: Path, original_tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / tiny_gguf.name
    # The model's name in the GGUF is that of its directory.
    source = copy_of(original_tiny, tmp_path / tiny.name)
    succeeds("to-gguf", source, out, "--tokenizer", tiny)
    assert out.read_bytes() == tiny_gguf.read_bytes()


def test_digests_do_not_depend_on_the_layout(tiny: Path, original_tiny: Path, tmp_path: Path) -> None:
    outcomes = [
        command("to-gguf", source, tmp_path / f"{source.name}.gguf", "--tokenizer", tiny, "--json")
        for source in (tiny, original_tiny)
    ]
    first, second = (outcome.json["digests"] for outcome in outcomes)
    assert first == second
    assert len(first) == 79


def test_tokenizer_of_the_parent_directory_is_found(tiny: Path, original_tiny: Path, tmp_path: Path) -> None:
    parent = copy_of(tiny, tmp_path / "tiny")
    nested = copy_of(original_tiny, parent / "original")
    checkpoint = open_checkpoint(nested)
    assert checkpoint.layout == "original"
    assert checkpoint.tokenizer_directory == parent
    assert checkpoint.config.raw["eos_token_id"] == 388


def test_gguf_without_a_tokenizer_is_refused(original_tiny: Path, tmp_path: Path) -> None:
    outcome = command("to-gguf", original_tiny, tmp_path / "out.gguf", "--quiet")
    refused(outcome, original_tiny, "no tokenizer", "--tokenizer")
    assert list(tmp_path.iterdir()) == []


def test_missing_tokenizer_of_a_directory_is_said(original_tiny: Path, tmp_path: Path) -> None:
    report = command("to-mxfp4", original_tiny, tmp_path / "hf", "--dry-run", "--json").json
    assert [note for note in report["notes"] if "tokenizer.json" in note and "--tokenizer" in note]


def test_several_files_have_the_official_names_and_an_index(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "original"
    succeeds("to-mxfp4", tiny, out, "--layout", "original", "--shard-plan", "1M")
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert shards == [f"model--{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    assert len(shards) > 2
    assert len(open_checkpoint(out).tensors) == 79


def test_config_holds_the_keys_that_openais_loader_takes_and_no_other(original_tiny: Path) -> None:
    config = json.loads((original_tiny / "config.json").read_bytes())
    assert list(config) == list(original.CONFIG_KEYS)


@pytest.mark.parametrize("key", original.CONFIG_KEYS)
def test_config_without_a_key_is_refused(key: str, original_tiny: Path) -> None:
    raw = json.loads((original_tiny / "config.json").read_bytes())
    del raw[key]
    with pytest.raises(ConfigError, match="the key is missing") as caught:
        original.parse_original_config(raw)
    assert caught.value.key == key


def test_config_that_is_not_a_number_is_refused_by_name(original_tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(original_tiny, tmp_path / "original")
    edit_json(checkpoint / "config.json", lambda config: config.update(rope_scaling_factor="32"))
    refused(command("inspect", checkpoint), checkpoint / "config.json", "rope_scaling.factor", "found '32'")


def test_truncated_yarn_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    edit_json(checkpoint / "config.json", lambda config: config["rope_scaling"].update(truncate=True))
    outcome = command("to-mxfp4", checkpoint, tmp_path / "original", "--layout", "original")
    refused(outcome, "original/ cannot express the value", "rope_scaling.truncate")


def test_official_20b_files_have_the_published_sizes() -> None:
    layout = OriginalTarget(Path("original")).lay_out(synthetic_checkpoint(parse_config(GPT_OSS_20B), 0))
    sizes = {file.path.name: file.n_bytes for file in layout.files}
    texts = {path.name: len(text) for path, text in layout.texts}
    assert sizes == {"model.safetensors": 13_761_300_984}
    assert texts == {"config.json": 376, "dtypes.json": 13_082}


def test_official_120b_files_have_the_published_names_and_config() -> None:
    layout = OriginalTarget(Path("original")).lay_out(synthetic_checkpoint(parse_config(GPT_OSS_120B), 0))
    names = [file.path.name for file in layout.files]
    assert names == [f"model--{number:05d}-of-00007.safetensors" for number in range(1, 8)]
    texts = {path.name: text for path, text in layout.texts}
    assert set(texts) == {"config.json", "dtypes.json", "model.safetensors.index.json"}
    digest = hashlib.sha256(texts["config.json"]).hexdigest()
    assert digest == "063aaa98e012cac330d58d18471700f0b0eb90bb15c58fb227809d45090f3e65"


@pytest.mark.parametrize("official", [GPT_OSS_20B, GPT_OSS_120B], ids=["20b", "120b"])
def test_official_hf_config_comes_back_from_original(official: dict[str, object]) -> None:
    raw = json.loads(original.original_config(parse_config(official)))
    assert original.parse_original_config(raw).raw == official


@pytest.mark.parametrize("official", [GPT_OSS_20B, GPT_OSS_120B], ids=["20b", "120b"])
def test_small_official_files_are_made_where_the_source_has_none(official: dict[str, object]) -> None:
    layout = HfTarget(Path("hf")).lay_out(synthetic_checkpoint(parse_config(official), 0))
    digests = {path.name: hashlib.sha256(text).hexdigest()[:8] for path, text in layout.texts}
    assert digests["generation_config.json"] == "f9970ada"
    assert digests["tokenizer_config.json"] == "9279e942"
    assert digests["special_tokens_map.json"] == "dd5e191d"
