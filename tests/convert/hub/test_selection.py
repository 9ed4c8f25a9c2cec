"""Which files a job takes of a repository: those that it needs, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from gptoss_convert.convert.hub.errors import HubError
from gptoss_convert.convert.hub.ids import HubId, parse_id
from gptoss_convert.convert.hub.need import Need
from gptoss_convert.convert.hub.selection import Selection, keep_named_shards, select

TOKENIZER = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
}
CARRIED = {"tokenizer.json", "LICENSE", "USAGE_POLICY"}
INDEX = "model.safetensors.index.json"
SHARDS = {f"model-0000{number}-of-00002.safetensors" for number in range(3)}

# The files of openai/gpt-oss-20b.
OFFICIAL = {
    *TOKENIZER,
    *CARRIED,
    *SHARDS,
    INDEX,
    ".gitattributes",
    "README.md",
    "original/config.json",
    "original/dtypes.json",
    "original/model.safetensors",
    "metal/model.bin",
}
# As others publish GGUF files.
GGUF = {
    "README.md",
    "config.json",
    "m-F16.gguf",
    "m-Q4_K_M.gguf",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
}


def chosen(names: Iterable[str], text: str, need: Need) -> Selection:
    wanted = parse_id(text)
    assert wanted is not None
    return select(wanted, dict.fromkeys(names, 1_000_000), need)


CASES: dict[tuple[str, Need], tuple[str, set[str], set[str]]] = {
    ("a/b", Need.HEADERS): ("", {*TOKENIZER, INDEX}, SHARDS),
    ("a/b", Need.PLAN): ("", {*TOKENIZER, *CARRIED, INDEX}, SHARDS),
    ("a/b", Need.WEIGHTS): ("", {*TOKENIZER, *CARRIED, INDEX}, SHARDS),
    ("a/b", Need.TOKENIZER): ("", {*TOKENIZER, *CARRIED}, set()),
    ("a/b/original", Need.HEADERS): ("original", {*TOKENIZER, "original/config.json"}, {"original/model.safetensors"}),
    ("a/b/original", Need.WEIGHTS): (
        "original",
        {*TOKENIZER, *CARRIED, "original/config.json"},
        {"original/model.safetensors"},
    ),
    ("a/b/metal", Need.WEIGHTS): ("metal/model.bin", set(), {"metal/model.bin"}),
    ("a/b/metal/model.bin", Need.HEADERS): ("metal/model.bin", set(), {"metal/model.bin"}),
}


@pytest.mark.parametrize(("text", "need"), CASES, ids=lambda value: getattr(value, "value", value))
def test_official_repository_gives_what_the_job_needs(text: str, need: Need) -> None:
    found = chosen(OFFICIAL, text, need)
    assert (found.opens, set(found.whole), set(found.weights)) == CASES[text, need]


def test_of_the_tokenizer_of_original_headers_need_only_that_it_is_there() -> None:
    assert chosen(OFFICIAL, "a/b/original", Need.HEADERS).named == ("tokenizer.json",)


@pytest.mark.parametrize("extra", ["adapter_config.json", "mxfp4_digests.json"])
def test_what_the_reader_of_a_directory_looks_for_is_brought(extra: str) -> None:
    assert extra in chosen({*OFFICIAL, extra}, "a/b", Need.HEADERS).whole


def test_only_shards_that_the_index_names_are_taken(tmp_path: Path) -> None:
    index = tmp_path / INDEX
    index.write_text('{"weight_map": {"x": "model-00001-of-00002.safetensors"}}', encoding="utf-8")
    found = chosen({*OFFICIAL, "consolidated.safetensors"}, "a/b", Need.WEIGHTS)
    narrowed = keep_named_shards(found, HubId("a/b"), index, dict.fromkeys(OFFICIAL, 1))
    assert narrowed.weights == ("model-00001-of-00002.safetensors",)


def test_shard_that_the_repository_lacks_is_named(tmp_path: Path) -> None:
    index = tmp_path / INDEX
    index.write_text('{"weight_map": {"x": "model-00007-of-00002.safetensors"}}', encoding="utf-8")
    found = chosen(OFFICIAL, "a/b", Need.WEIGHTS)
    with pytest.raises(HubError, match="1 of 1 files that the index names are missing; expected model-00007"):
        keep_named_shards(found, HubId("a/b"), index, dict.fromkeys(OFFICIAL, 1))


# --- GGUF ---


def test_gguf_is_chosen_by_its_file() -> None:
    assert chosen(GGUF, "a/b/m-F16.gguf", Need.WEIGHTS) == Selection("m-F16.gguf", (), ("m-F16.gguf",))


@pytest.mark.parametrize(
    "text", ["a/b/BF16", "a/b/BF16/m-BF16-00001-of-00002.gguf", "a/b/BF16/m-BF16-00002-of-00002.gguf"]
)
def test_parts_of_a_split_gguf_are_taken_together(text: str) -> None:
    parts = tuple(f"BF16/m-BF16-0000{number}-of-00002.gguf" for number in (1, 2))
    assert chosen(GGUF, text, Need.WEIGHTS) == Selection(parts[0], (), parts)


def test_several_models_are_listed_with_their_sizes() -> None:
    found = r"found BF16/m-BF16-00001-of-00002.gguf \(2.00 MB\), m-F16.gguf \(1.00 MB\), m-Q4_K_M.gguf \(1.00 MB\)"
    with pytest.raises(
        HubError, match=f"holds 3 models as GGUF; .*{found}. Name the file, such as a/b/BF16/m-BF16-00001"
    ):
        chosen(GGUF, "a/b", Need.WEIGHTS)


def test_missing_part_is_named() -> None:
    names = GGUF - {"BF16/m-BF16-00002-of-00002.gguf"}
    with pytest.raises(
        HubError, match="1 of 2 parts of the split model are missing; expected BF16/m-BF16-00002-of-00002"
    ):
        chosen(names, "a/b/BF16", Need.WEIGHTS)


REFUSED: dict[str, tuple[set[str], str, Need, str]] = {
    "a folder with a typo": (
        OFFICIAL,
        "a/b/orginal",
        Need.WEIGHTS,
        "no such folder or file; .*Did you mean a/b/original",
    ),
    "a file with a typo": (
        GGUF,
        "a/b/m-Q4_K_S.gguf",
        Need.WEIGHTS,
        "no such folder or file; .*Did you mean a/b/m-Q4_K_M.gguf",
    ),
    "nothing like it": (
        OFFICIAL,
        "a/b/zzz",
        Need.WEIGHTS,
        "Give a/b for the weights at its root; folders are: metal, orig",
    ),
    "a shard alone": (OFFICIAL, "a/b/model-00000-of-00002.safetensors", Need.WEIGHTS, "no checkpoint; .* Give a/b"),
    "an adapter": ({"adapter_config.json"}, "a/b", Need.WEIGHTS, "no weights there; .* found adapter weights alone"),
    "pickled weights": (
        {"pytorch_model.bin"},
        "a/b",
        Need.WEIGHTS,
        "no weights there; expected .*safetensors or .*gguf",
    ),
    "weights in a folder": ({"original/x.safetensors"}, "a/b", Need.WEIGHTS, "Name a folder, such as a/b/original"),
    "no tokenizer": (GGUF, "a/b", Need.TOKENIZER, "no tokenizer.json there"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_chosen_is_refused_with_the_next_step(case: str) -> None:
    names, text, need, message = REFUSED[case]
    with pytest.raises(HubError, match=message):
        chosen(names, text, need)
