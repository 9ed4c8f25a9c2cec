"""Every layout is complete or refused by name: nothing missing, extra, twice, of another shape or dtype, or made up.

All that is refused here is refused by headers alone, before a weight is read.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import pytest
from checkpoints import copy_of, edit_json, edit_tensors, read_tensors
from command_line import command, refuses
from expert_spellings import llm_compressor, packed_in, unsloth
from hollow import Change, Entries, Entry, entries, hollow
from ways import STEPS, Ways

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.formats.containers.metal import read_metal
from gptoss_convert.formats.errors import CheckpointError
from gptoss_convert.model.layouts.metal import gaps, metal_arrays

N_PARAMETERS = 3_725_808
CUT_PARAMETERS = 2 * 16 * 192

WRITTEN = [
    "hf",
    "original",
    "original-shards",
    "mlx",
    "gguf",
    "gguf-shards",
    "gguf-f16",
    "gguf-f32",
    "ollama-legacy",
    "bf16",
]
SPELLED = ["Unsloth", "llm-compressor", "mixed"]
LAYOUTS = [*WRITTEN, *SPELLED]


@pytest.fixture(scope="module")
def sources(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sources(layout)`: the tiny checkpoint in that layout, to be read only."""
    ways = Ways(tiny, tmp_path_factory.mktemp("ways"))
    changes = {"Unsloth": unsloth, "llm-compressor": llm_compressor, "mixed": packed_in(read_tensors(tiny), 0, 1)}
    spelled = {name: ways.directory / name for name in changes}

    def source(layout: str) -> Path:
        if layout not in changes:
            return ways.path() if layout == "hf" else ways.path(layout)
        if not spelled[layout].exists():
            edit_tensors(copy_of(ways.path("bf16"), spelled[layout]), changes[layout])
        return spelled[layout]

    return source


# --- each array of a layer and of the model, one at a time ---


def looked_at(source: Path) -> list[str]:
    """The arrays of layer 1 and of the model."""
    names = [name for name in entries(source) if not re.search(r"\b(layers|block|blk)\.[023]\.", name)]
    assert len([name for name in names if ".1." in name]) >= 13
    assert len([name for name in names if ".1." not in name]) == 3
    return names


def refusals(source: Path, tmp_path: Path, change: Callable[[Entries, str], object]) -> Iterator[tuple[str, str]]:
    """Each array's name, and what is said when `change` was done to it."""
    for number, name in enumerate(looked_at(source)):
        path = hollow(source, tmp_path / str(number), partial(change, name))
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert caught.value.remedy
        yield name, str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_array_is_needed(layout: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    """Half a pair of blocks and scales and one expert's arrays among them."""
    for name, message in refusals(sources(layout), tmp_path, lambda name, arrays: arrays.pop(name)):
        assert "missing" in message, name
        assert repr(name) in message


def one_row_longer(name: str, arrays: Entries) -> None:
    first, *rest = arrays[name].shape
    arrays[name].shape = (first + 1, *rest)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_array_has_one_shape(layout: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    """GGUF takes the size of the vocabulary from the embedding, and says that the config has another."""
    for name, message in refusals(sources(layout), tmp_path, one_row_longer):
        if name == "token_embd.weight":
            assert "vocab_size" in message
            assert "the embedding's rows" in message
        else:
            assert repr(name) in message
            assert "shape" in message


WHOLE_NUMBERS = {"U8": "I8", "MXFP4": "I8", "OLLAMA_MXFP4": "I8", "BF16": "I16", "F16": "I16"}


def of_whole_numbers(name: str, arrays: Entries) -> None:
    arrays[name].dtype = WHOLE_NUMBERS.get(arrays[name].dtype, "I32")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_array_may_be_of_whole_numbers(layout: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    """MLX's scales say how the weight is to be decoded: it is the one that is named."""
    for name, message in refusals(sources(layout), tmp_path, of_whole_numbers):
        if layout == "mlx" and name.endswith(".scales"):
            assert repr(name.replace(".scales", ".weight")) in message
            assert "cannot be decoded; expected mode mxfp4: a scale byte" in message
            assert "found I8" in message
        else:
            assert repr(name) in message
            assert "dtype" in message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_array_of_a_layer_too_many_is_extra(layout: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    def with_another_layer(name: str, arrays: Entries) -> None:
        arrays[name.replace(".1.", ".4.", 1)] = arrays[name]

    source = sources(layout)
    for number, name in enumerate(name for name in looked_at(source) if ".1." in name):
        path = hollow(source, tmp_path / str(number), partial(with_another_layer, name))
        with pytest.raises(CheckpointError, match=re.escape(repr(name.replace(".1.", ".4.", 1)))) as caught:
            open_checkpoint(path)
        assert "belongs to no part of gpt-oss" in str(caught.value)


# --- nothing is made up ---

ABSENT = {
    "hf": ("self_attn.sinks", "self_attn.o_proj.bias", "mlp.experts.down_proj_bias", "lm_head.weight"),
    "bf16": ("self_attn.sinks", "self_attn.o_proj.bias", "mlp.experts.down_proj_bias", "lm_head.weight"),
    "Unsloth": ("self_attn.sinks", "self_attn.o_proj.bias", "mlp.experts.down_projs.7.bias", "lm_head.weight"),
    "mixed": ("self_attn.sinks", "self_attn.o_proj.bias", "mlp.experts.gate_up_proj_bias", "lm_head.weight"),
    "original": ("attn.sinks", "attn.out.bias", "mlp.mlp2_bias", "unembedding.weight"),
    "mlx": ("self_attn.sinks", "self_attn.o_proj.bias", "mlp.experts.up_proj.bias", "lm_head.weight"),
    "gguf": ("attn_sinks.weight", "attn_output.bias", "ffn_up_exps.bias", "output.weight"),
    "ollama-legacy": ("attn_sinks", "attn_out.bias", "ffn_gate_up_exps.bias", "output.weight"),
}


@pytest.mark.parametrize(("layout", "end"), [(layout, end) for layout, ends in ABSENT.items() for end in ends])
def test_absent_biases_sinks_and_unembedding_are_errors_never_zeros(
    layout: str, end: str, sources: Callable[[str], Path], tmp_path: Path
) -> None:
    names = [name for name in entries(sources(layout)) if name == end or name.endswith(f".{end}")]
    assert len(names) in (1, 4)

    def take(arrays: Entries) -> None:
        for name in names:
            del arrays[name]

    path = hollow(sources(layout), tmp_path / "source", take)
    refuses(path, f"tensor '{names[0]}'", "the tensor is missing", "expected shape")


@pytest.mark.parametrize("layout", ["hf", "bf16", "mlx"])
@pytest.mark.parametrize("head", ["with", "without"])
def test_tied_embeddings_are_no_gpt_oss(layout: str, head: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    path = hollow(sources(layout), tmp_path / "source", lambda arrays: head == "with" or arrays.pop("lm_head.weight"))
    edit_json(path / "config.json", lambda config: config.update(tie_word_embeddings=True))
    refuses(path, "config.json", "key 'tie_word_embeddings'", "expected False", "found True")


# --- twice ---

EXPERTS = "model.layers.1.mlp.experts"
ROUTER = "model.layers.1.mlp.router"


def added(**arrays: tuple[str, tuple[int, ...]]) -> Change:
    """More arrays, in the file of the last one there is."""

    def change(found: Entries) -> None:
        file = list(found.values())[-1].file
        found.update({name: Entry(file, dtype, shape) for name, (dtype, shape) in arrays.items()})

    return change


FUSED = {f"{EXPERTS}.gate_up_proj": ("BF16", (8, 192, 320))}
PACKED = {
    f"{EXPERTS}.gate_up_proj_blocks": ("U8", (8, 320, 6, 16)),
    f"{EXPERTS}.gate_up_proj_scales": ("U8", (8, 320, 6)),
}
APART = {f"{EXPERTS}.gate_up_projs.{expert}.weight": ("BF16", (320, 192)) for expert in range(8)}
DEEPER = {f"{EXPERTS}.experts.{expert}.down_proj.weight": ("BF16", (192, 160)) for expert in range(8)}
MISNAMED = {f"{EXPERTS}.gate_up_proj_blocks": ("BF16", (8, 192, 320))}
ROUTER_BIAS = {f"{ROUTER}.bias": ("BF16", (8,))}
BIAS = {f"{EXPERTS}.down_proj_bias": ("BF16", (8, 192))}
QKV = {"blk.1.attn_qkv.weight": ("BF16", (512, 192))}
K = {"blk.1.attn_k.weight": ("BF16", (128, 192))}
GATE = {"blk.1.ffn_gate_exps.bias": ("F32", (8, 160))}
UP = {"blk.1.ffn_up_exps.weight": ("MXFP4", (8, 160, 192))}
GATE_UP = {"blk.1.ffn_gate_up_exps.bias": ("F32", (8, 320))}
IN_TURN = {"blk.1.ffn_gate_up_exps.weight": ("MXFP4", (8, 320, 192))}
SINKS = {"blk.1.attn_sinks": ("F32", (4,))}
ONE = {f"{EXPERTS}.gate_up_projs.3.weight": ("BF16", (320, 192))}

TWICE = {
    "packed and fused": ("hf", FUSED, f"{EXPERTS}.gate_up_proj_blocks", f"{EXPERTS}.gate_up_proj"),
    "packed and one for each expert": ("hf", APART, f"{EXPERTS}.gate_up_proj_blocks", f"{EXPERTS}.gate_up_projs.0."),
    "fused and packed": ("bf16", PACKED, f"{EXPERTS}.gate_up_proj_blocks", f"{EXPERTS}.gate_up_proj"),
    "fused and misnamed": ("bf16", MISNAMED, f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.gate_up_proj_blocks"),
    "fused and one for each expert": ("bf16", DEEPER, f"{EXPERTS}.down_proj", f"{EXPERTS}.experts.0.down_proj."),
    "one for each expert and fused": ("Unsloth", FUSED, f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.gate_up_projs.0."),
    "one for each expert and packed": ("Unsloth", PACKED, f"{EXPERTS}.gate_up_proj_blocks", "gate_up_projs.0."),
    "one for each expert in two spellings": ("Unsloth", DEEPER, f"{EXPERTS}.down_projs.0.", ".experts.0.down_proj."),
    "biases of experts": ("llm-compressor", BIAS, f"{EXPERTS}.down_proj_bias", ".experts.0.down_proj.bias"),
    "bias of the router": ("Unsloth", ROUTER_BIAS, f"{ROUTER}.bias", f"{ROUTER}.linear.bias"),
    "mixed, packed and fused": ("mixed", FUSED, f"{EXPERTS}.gate_up_proj_blocks", f"{EXPERTS}.gate_up_proj"),
    "GGUF's q, k, v apart and in one": ("gguf", QKV, "blk.1.attn_q.weight", "blk.1.attn_qkv.weight"),
    "Ollama's q, k, v in one and apart": ("ollama-legacy", K, "blk.1.attn_qkv.weight", "blk.1.attn_k.weight"),
    "Ollama's gate and up in turn and apart": ("ollama-legacy", GATE, "blk.1.ffn_gate_up_exps.bias", "ffn_gate_exps."),
    "GGUF's experts in turn and apart": (
        "gguf",
        IN_TURN,
        "blk.1.ffn_gate_up_exps.weight",
        "blk.1.ffn_gate_exps.weight",
    ),
    "GGUF's biases in turn and apart": ("gguf", GATE_UP, "blk.1.ffn_gate_up_exps.bias", "blk.1.ffn_gate_exps.bias"),
    "Ollama's experts in turn and apart": ("ollama-legacy", UP, "ffn_gate_up_exps.weight", "blk.1.ffn_up_exps.weight"),
    "GGUF's sinks in two spellings": ("gguf", SINKS, "blk.1.attn_sinks", "blk.1.attn_sinks.weight"),
    "one expert of another spelling": ("bf16", ONE, f"{EXPERTS}.gate_up_projs.3.weight", f"{EXPERTS}.gate_up_proj"),
}


@pytest.mark.parametrize("case", TWICE)
def test_tensor_that_is_stored_twice_is_refused_with_both_names(
    case: str, sources: Callable[[str], Path], tmp_path: Path
) -> None:
    layout, more, *names = TWICE[case]
    path = hollow(sources(layout), tmp_path / "source", added(**more))
    refuses(path, "the tensor is stored twice, also as", *names, "expected one of them", "Remove the one")


STRANGERS = {
    "an expert too many": ("Unsloth", {f"{EXPERTS}.gate_up_projs.8.weight": ("BF16", (320, 192))}),
    "MLX, packed as Hugging Face does": ("mlx", PACKED),
    "MLX, scales of what is not quantized": ("mlx", {"lm_head.scales": ("U8", (416, 6))}),
    "original, q apart": ("original", {"block.1.attn.q.weight": ("BF16", (256, 192))}),
    "GGUF, frequencies": ("gguf", {"rope_freqs.weight": ("F32", (32,))}),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_array_that_the_layout_has_no_place_for_is_extra(
    case: str, sources: Callable[[str], Path], tmp_path: Path
) -> None:
    layout, more = STRANGERS[case]
    path = hollow(sources(layout), tmp_path / "source", added(**more))
    refuses(path, f"tensor '{next(iter(more))}'", "belongs to no part of gpt-oss", "remove it")


# --- experts that are not like the others ---


def changed(name: str, **fields: object) -> Change:
    def change(arrays: Entries) -> None:
        arrays[name] = replace(arrays[name], **fields)  # type: ignore[arg-type]

    return change


def test_one_expert_in_another_dtype_is_refused(sources: Callable[[str], Path], tmp_path: Path) -> None:
    name = f"{EXPERTS}.down_projs.5.weight"
    path = hollow(sources("Unsloth"), tmp_path / "source", changed(name, dtype="F32"))
    refuses(path, f"tensor '{name}'", "dtype", "expected BF16, as that of the other experts", "found F32")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{EXPERTS}.gate_up_proj", (8, 320, 192)),
        (f"{EXPERTS}.gate_up_proj_bias", (320, 8)),
        (f"{EXPERTS}.down_proj", (8, 192, 160)),
    ],
)
def test_transposed_array_is_refused(
    name: str, shape: tuple[int, ...], sources: Callable[[str], Path], tmp_path: Path
) -> None:
    path = hollow(sources("bf16"), tmp_path / "source", changed(name, shape=shape))
    refuses(path, f"tensor '{name}'", "contradicts the config", f"found shape {list(shape)}")


# --- a Metal file has no list of arrays: its size and its gaps say whether it is whole ---

EXPERT_BYTES = 320 * 102 + 640 + 192 * 85 + 384


@pytest.fixture
def metal(sources: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy, free to be damaged, in an otherwise empty directory."""
    (tmp_path / "metal").mkdir()
    return Path(shutil.copy(sources("metal"), tmp_path / "metal" / "model.bin"))


@pytest.mark.parametrize("n_bytes", [1, 384, EXPERT_BYTES, 8 * EXPERT_BYTES])
def test_metal_file_that_is_too_short_is_refused(n_bytes: int, metal: Path) -> None:
    with metal.open("r+b") as file:
        file.truncate(metal.stat().st_size - n_bytes)
    refuses(metal, metal, f"the file is {n_bytes:,} bytes too short for its weights", "expected 3,1", "found")


@pytest.mark.parametrize("n_bytes", [1, EXPERT_BYTES])
def test_metal_file_that_is_too_long_is_refused(n_bytes: int, metal: Path) -> None:
    with metal.open("ab") as file:
        file.write(bytes(n_bytes))
    refuses(metal, metal, f"there are {n_bytes:,} bytes after the last weight", "expected 3,1", "found")


FIELDS = {"num_blocks": 36, "num_experts": 40, "embedding_dim": 48, "num_heads": 64}


@pytest.mark.parametrize(("field", "more"), [("num_blocks", 1), ("num_experts", 1), ("embedding_dim", 32)])
def test_metal_file_of_another_shape_than_its_header_says_is_refused(field: str, more: int, metal: Path) -> None:
    with metal.open("r+b") as file:
        file.seek(FIELDS[field])
        (number,) = struct.unpack("<I", file.read(4))
        file.seek(FIELDS[field])
        file.write(struct.pack("<I", number + more))
    refuses(metal, metal, "bytes too short for its weights")


def test_every_gap_of_a_metal_file_must_be_zero(metal: Path) -> None:
    """There is one after each layer's sinks, and one before each layer's experts."""
    header = read_metal(metal)
    found = gaps(metal_arrays(header.fields, header.tokenizer.n_tokens))
    assert len(found) == 2 * 4
    for offset, n_bytes in found:
        for place in {offset, offset + n_bytes - 1}:
            with metal.open("r+b") as file:
                file.seek(header.weights_offset + place)
                assert file.read(1) == b"\0"
                file.seek(header.weights_offset + place)
                file.write(b"\1")
                file.flush()
                refuses(metal, metal, "the padding between two arrays is not zero", "expected zeros", "damaged")
                file.seek(header.weights_offset + place)
                file.write(b"\0")
    assert command("inspect", metal, "--json").code == 0


# --- parameters in are parameters out ---

TARGETS = [name for name in STEPS if name != "metal"]


@pytest.mark.parametrize("source", LAYOUTS)
def test_every_stored_byte_is_accounted_for(source: str, sources: Callable[[str], Path]) -> None:
    report = command("inspect", sources(source), "--json").json
    assert report["parameters"] == N_PARAMETERS
    assert report["tensor_bytes"] == sum(map(stored_bytes, entries(sources(source)).values()))


def stored_bytes(entry: Entry) -> int:
    n_bytes = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4, "U32": 4, "MXFP4": 17 / 32, "OLLAMA_MXFP4": 17 / 32}
    return int(prod(entry.shape) * n_bytes[entry.dtype])


def planned(sources: Callable[[str], Path], source: str, target: str, out: Path) -> int:
    """How many parameters are planned to be written, in all roles together."""
    options = ["--tokenizer", sources("hf")] if source.startswith("original") else []
    options += ["--pad-vocab"] if source == "metal" and target != "metal" else []
    step = STEPS[target]
    outcome = command(step.command, sources(source), out, *step.options, *options, "--dry-run", "--json")
    assert outcome.code == 0, outcome.out
    report = outcome.json
    assert report["parameters"] == sum(role["parameters"] for role in report["roles"])
    return int(report["parameters"])


@pytest.mark.parametrize("source", [*LAYOUTS, "metal"])
def test_parameters_in_are_parameters_out(source: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    found = {target: planned(sources, source, target, tmp_path / "out") for target in TARGETS}
    assert found == dict.fromkeys(TARGETS, N_PARAMETERS)


@pytest.mark.parametrize("source", [*LAYOUTS, "metal"])
def test_parameters_in_are_parameters_out_but_for_the_rows_that_metal_has_no_place_for(
    source: str, sources: Callable[[str], Path], tmp_path: Path
) -> None:
    assert planned(sources, source, "metal", tmp_path / "out") == N_PARAMETERS - CUT_PARAMETERS
