"""The files that OpenAI published, as far as they can be told without weights: names, sizes, SHA-256 and counts.

Sources are of the true shapes, made by `make-demo --sparse`: every weight is zero, files are holes. So everything runs
through the command line as it would with the real weights. Published are the files of openai/gpt-oss-20b at revision
6cee5e81 and of openai/gpt-oss-120b at b5c939de.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import edit_json
from command_line import command

from gptoss_convert.convert import staging
from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.targets.gguf import GgufTarget

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these files would be no holes there, but 160 GB")

MODELS = ("20b", "120b")

TEXTS = {
    "generation_config.json": "f9970ada892d2d1f72e3ed0a6535ccebadd11897318794ca671d8c7014c957da",
    "special_tokens_map.json": "dd5e191d20c12d2fee1da5bae14ca1db0f5f4215300af691f23cdee97120a293",
    "tokenizer_config.json": "9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070",
}
SHA256 = {
    "20b": TEXTS
    | {
        "config.json": "3a2a26ded679375b7928ddeca59764df7cea83220c1961035f6d6e232659e9ce",
        "model.safetensors.index.json": "0e085b977c4c9942f85938828e8c989ed7d5cdabf852e4da6a67c116cd502cd1",
    },
    "120b": TEXTS
    | {
        "config.json": "933aeb666a3fd851133ddd7686414f369bc564c4185fb5704416550879f10566",
        "model.safetensors.index.json": "ede2655fdc05008561983b6e0829c600727c28d591e071077377059f03a6c00e",
    },
}

# Bytes of the shards, numbered from 0; the names end with the number of the last.
SHARDS = {
    "20b": (4_792_272_488, 4_798_702_184, 4_170_342_232),
    "120b": (
        *(4_625_017_896, 4_115_586_736, 4_625_017_888, 4_115_586_752, 4_625_017_896),
        *(4_115_586_696, 4_625_017_856, 4_060_267_176, 4_625_017_896, 4_170_906_304),
        *(4_625_017_896, 4_115_586_752, 4_064_660_808, 4_625_017_896, 4_115_586_736),
    ),
}


def official_shards(model: str) -> dict[str, int]:
    last = len(SHARDS[model]) - 1
    return {f"model-{n:05d}-of-{last:05d}.safetensors": n_bytes for n, n_bytes in enumerate(SHARDS[model])}


@dataclass(frozen=True)
class Counts:
    """Published, or counted in the published files: arrays of each layout, parameters, bytes of all arrays.

    `widened` are the bytes of what is BF16 in these files and F32 in GGUF: norms, biases, sinks, router.
    """

    parameters: int
    hf: int
    original: int
    bf16: int
    mlx: int
    gguf: int
    ollama: int
    mxfp4_bytes: int
    bf16_bytes: int
    widened: int


COUNTS = {
    "20b": Counts(
        parameters=20_914_757_184,
        hf=459,
        original=363,
        bf16=411,
        mlx=531,
        gguf=459,
        ollama=315,
        mxfp4_bytes=13_761_264_768,
        bf16_bytes=41_829_514_368,
        widened=24 * (2 * 5_760 + 8_192 + 2 * 1_024 + 5_760 + 128 + 184_320 + 64 + 368_640 + 184_320) + 5_760,
    ),
    "120b": Counts(
        parameters=116_829_156_672,
        hf=687,
        original=543,
        bf16=615,
        mlx=795,
        gguf=687,
        ollama=471,
        mxfp4_bytes=65_248_815_744,
        bf16_bytes=233_658_313_344,
        widened=36 * (2 * 5_760 + 8_192 + 2 * 1_024 + 5_760 + 128 + 737_280 + 256 + 4 * (368_640 + 184_320)) + 5_760,
    ),
}

METAL_BYTES = {"20b": 13_750_886_400, "120b": 65_238_253_568}


# --- sources ---

Made = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """`made(model, layout)`: the sparse checkpoint, made once, to be read only."""
    directory = tmp_path_factory.mktemp("official")

    def make(model: str, layout: str) -> Path:
        out = directory / f"{model}-{layout}"
        if not out.exists():
            done = command("make-demo", out, "--preset", model, "--layout", layout, "--sparse", "--json")
            assert done.code == 0, done.err
        return out

    yield make
    shutil.rmtree(directory)


def room(directory: Path) -> int:
    """Bytes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def sizes(directory: Path, pattern: str = "*") -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.glob(pattern)}


def sha256(directory: Path) -> dict[str, str]:
    """Of the small files."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.json")}


def planned(source: Path, *arguments: str) -> dict[str, Any]:
    """What `--dry-run --json` says of a conversion: the command, then options."""
    name, *options = arguments
    return command(name, source, source.with_name("out"), *options, "--dry-run", "--json").json


def planned_sizes(report: dict[str, Any]) -> dict[str, int]:
    return {Path(file["path"]).name: file["bytes"] for file in report["files"]}


def planned_sha256(report: dict[str, Any]) -> dict[str, str]:
    return {Path(file["path"]).name: file["sha256"] for file in report["files"] if "sha256" in file}


# --- make-demo --sparse ---


@pytest.mark.parametrize("layout", ["hf", "original"])
@pytest.mark.parametrize("model", MODELS)
def test_sparse_checkpoint_takes_no_room(model: str, layout: str, made: Made) -> None:
    """Headers and small files; the tokenizer has 14 MB."""
    directory = made(model, layout)
    assert sum(sizes(directory, "*.safetensors").values()) > COUNTS[model].mxfp4_bytes
    assert room(directory) < 20_000_000


@pytest.mark.parametrize("layout", ["hf", "original"])
@pytest.mark.parametrize("model", MODELS)
def test_sparse_checkpoint_is_one_of_the_true_shapes(model: str, layout: str, made: Made) -> None:
    report = command("inspect", made(model, layout), "--json").json
    counts = COUNTS[model]
    assert (report["layout"], report["parameters"]) == (layout, counts.parameters)
    assert (report["tensor_count"], report["tensor_bytes"]) == (getattr(counts, layout), counts.mxfp4_bytes)


@pytest.mark.parametrize("model", MODELS)
def test_sparse_checkpoint_has_the_official_files(model: str, made: Made) -> None:
    directory = made(model, "hf")
    assert sizes(directory, "*.safetensors") == official_shards(model)
    assert {name: digest for name, digest in sha256(directory).items() if name in SHA256[model]} == SHA256[model]


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_weights_of_a_sparse_checkpoint_are_zero_and_it_converts(layout: str, tmp_path: Path) -> None:
    source, back = tmp_path / "tiny", tmp_path / "back"
    assert command("make-demo", source, "--layout", layout, "--sparse", "--quiet").code == 0
    outcome = command("to-mxfp4", source, back, "--layout", layout, "--shard-plan", "1M", "--json")
    assert outcome.json["verified"] is True
    for path in (*source.glob("*.safetensors"), *back.glob("*.safetensors")):
        content = path.read_bytes()
        data = content[8 + struct.unpack_from("<Q", content)[0] :]
        assert data == bytes(len(data))


def test_sparse_checkpoint_needs_no_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "free_bytes", lambda _directory: 100_000)
    assert command("make-demo", tmp_path / "sparse", "--sparse", "--quiet").code == 0
    outcome = command("make-demo", tmp_path / "full", "--quiet")
    assert outcome.code == 1
    assert outcome.says("too little free space")


# --- original to Hugging Face ---


def require_index(model: str, index: dict[str, Any]) -> None:
    """Fails unless it names every array, and every shard, and the bytes of all."""
    assert index["metadata"] == {"total_size": COUNTS[model].mxfp4_bytes}
    assert len(index["weight_map"]) == COUNTS[model].hf
    assert set(index["weight_map"].values()) == set(official_shards(model))


@pytest.mark.parametrize("options", [(), ("--shard-plan", "official")], ids=["by default", "asked for"])
@pytest.mark.parametrize("model", MODELS)
def test_plan_from_original_names_every_official_file_with_size_and_digest(
    model: str, options: tuple[str, ...], made: Made
) -> None:
    report = planned(made(model, "original"), "to-mxfp4", *options)
    assert planned_sha256(report) == SHA256[model]
    found = planned_sizes(report)
    assert {name: n_bytes for name, n_bytes in found.items() if name not in SHA256[model]} == official_shards(model)
    require_index(model, report["index"])
    assert (report["parameters"], report["tensor_bytes"]) == (COUNTS[model].parameters, COUNTS[model].mxfp4_bytes)


@pytest.mark.slow
def test_20b_from_original_is_the_official_directory_on_the_disk(made: Made, tmp_path: Path) -> None:
    """End to end with its proof; what stays zero stays a hole."""
    out = tmp_path / "hf"
    outcome = command("to-mxfp4", made("20b", "original"), out, "--shard-plan", "official", "--json")
    assert outcome.json["verified"] is True
    assert sizes(out, "*.safetensors") == official_shards("20b")
    assert sha256(out) == SHA256["20b"]
    assert len(list(out.iterdir())) == len(SHARDS["20b"]) + len(SHA256["20b"])
    require_index("20b", json.loads((out / "model.safetensors.index.json").read_bytes()))
    assert room(out) < 1_000_000


# --- Hugging Face to original ---


def test_plan_of_original_20b_has_the_published_names_and_sizes(made: Made) -> None:
    found = planned_sizes(planned(made("20b", "hf"), "to-mxfp4", "--layout", "original"))
    assert found == {"model.safetensors": 13_761_300_984, "config.json": 376, "dtypes.json": 13_082}


def test_plan_of_original_120b_has_the_published_names_and_config(made: Made) -> None:
    report = planned(made("120b", "hf"), "to-mxfp4", "--layout", "original")
    shards = [f"model--{number:05d}-of-00007.safetensors" for number in range(1, 8)]
    assert list(planned_sizes(report)) == [*shards, "config.json", "dtypes.json", "model.safetensors.index.json"]
    config = "063aaa98e012cac330d58d18471700f0b0eb90bb15c58fb227809d45090f3e65"
    assert planned_sha256(report)["config.json"] == config
    assert report["index"]["metadata"] == {"total_size": COUNTS["120b"].mxfp4_bytes}
    assert len(report["index"]["weight_map"]) == COUNTS["120b"].original
    assert set(report["index"]["weight_map"].values()) == set(shards)


@pytest.mark.parametrize(("model", "types"), [
    ("20b", {"BF16": 267, "FP4": 48, "UE8": 48}),
    ("120b", {"BF16": 399, "FP4": 72, "UE8": 72}),
])  # fmt: skip
def test_dtypes_of_original_count_as_published(model: str, types: dict[str, int], made: Made) -> None:
    """Of 20b; 120b has twelve layers more. The demo's file is the one that is planned from Hugging Face's layout."""
    path = made(model, "original") / "dtypes.json"
    found = json.loads(path.read_bytes())
    assert Counter(found.values()) == types
    assert [*found][:2] == ["embedding.weight", "block.0.attn.norm.scale"]
    assert [*found][-2:] == ["norm.scale", "unembedding.weight"]
    report = planned(made(model, "hf"), "to-mxfp4", "--layout", "original")
    assert planned_sha256(report)["dtypes.json"] == hashlib.sha256(path.read_bytes()).hexdigest()


# --- to the other layouts ---


@pytest.mark.parametrize("model", MODELS)
def test_plan_of_mlx_has_the_true_counts(model: str, made: Made) -> None:
    report, counts = planned(made(model, "hf"), "to-mlx"), COUNTS[model]
    assert (report["parameters"], report["tensor_bytes"]) == (counts.parameters, counts.mxfp4_bytes)
    assert len(report["index"]["weight_map"]) == counts.mlx
    total = {"total_size": counts.mxfp4_bytes, "total_parameters": counts.parameters}
    assert report["index"]["metadata"] == total


@pytest.mark.parametrize("model", MODELS)
def test_plan_of_bf16_has_the_true_counts(model: str, made: Made) -> None:
    report, counts = planned(made(model, "hf"), "to-bf16"), COUNTS[model]
    assert (report["parameters"], report["tensor_bytes"]) == (counts.parameters, counts.bf16_bytes)
    assert len(report["index"]["weight_map"]) == counts.bf16
    assert report["index"]["metadata"]["total_size"] == counts.bf16_bytes


@pytest.mark.parametrize(("dialect", "counted"), [("llama.cpp", "gguf"), ("ollama-legacy", "ollama")])
@pytest.mark.parametrize("model", MODELS)
def test_plan_of_gguf_has_the_true_bytes_and_number_of_arrays(
    model: str, dialect: str, counted: str, made: Made
) -> None:
    """The blocks' bytes are as many as before; what is F32 has twice as many."""
    layout = plan(open_checkpoint(made(model, "hf")), GgufTarget(Path("out.gguf"), dialect=dialect)).layout
    counts = COUNTS[model]
    assert sum(tensor.n_bytes for tensor in layout.tensors.values()) == counts.mxfp4_bytes + counts.widened
    assert struct.unpack_from("<4sIQ", layout.files[0].header) == (b"GGUF", 3, getattr(counts, counted))


@pytest.mark.parametrize("model", MODELS)
def test_plan_of_gguf_with_bf16_experts_has_the_true_bytes(model: str, made: Made) -> None:
    report, counts = planned(made(model, "hf"), "to-gguf", "--experts", "bf16"), COUNTS[model]
    assert report["parameters"] == counts.parameters
    assert report["tensor_bytes"] == counts.bf16_bytes + counts.widened


def lengthened(document: dict[str, Any]) -> None:
    """Gives text tokens seven bytes each, but those of one byte: about as many in all as the official ones have."""
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {text if len(text) == 1 else f"{id_:07d}": id_ for text, id_ in vocabulary.items()}
    document["model"]["merges"] = []


@pytest.mark.parametrize("model", MODELS)
def test_plan_of_metal_has_the_published_size(model: str, made: Made, tmp_path: Path) -> None:
    """The tokenizer before the weights is padded to a page, so a few bytes more or less are the same size."""
    source = made(model, "hf")
    tokenizer = Path(shutil.copytree(source, tmp_path / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors")))
    edit_json(tokenizer / "tokenizer.json", lengthened)
    report = planned(source, "to-metal", "--tokenizer", str(tokenizer))
    assert list(planned_sizes(report).values()) == [METAL_BYTES[model]]
