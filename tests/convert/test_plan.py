"""Plans: everything is known before the first byte, for the tiny model and, without data, for the true 20b and 120b."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_golden import MODELS, golden_path, read_header, true_layout, unfolded

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.plan import SLAB_BYTES, Plan, leaves, plan
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.convert.targets.sizes import parse_size
from gptoss_convert.formats.errors import UsageError

# --- the true shapes as GGUF, as ggml reads them ---


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def header(model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ggml reads from the planned header."""
    directory = tmp_path_factory.mktemp("true-shape")
    layout = true_layout(model, directory)
    return read_header(layout.files[0].header, directory)


def test_true_header_is_the_golden_one(model: str, header: dict[str, Any]) -> None:
    golden = json.loads(golden_path(model).read_text(encoding="utf-8"))
    assert header["kv"] == golden["kv"]
    assert header["tensors"] == unfolded(golden, golden["layers"])


def test_true_header_has_the_published_number_of_tensors_and_bytes(model: str, header: dict[str, Any]) -> None:
    n_tensors, n_bytes = {"20b": (459, 13_780e6), "120b": (687, 65_356e6)}[model]
    assert len(header["tensors"]) == n_tensors
    assert sum(size for *_, size in header["tensors"]) == pytest.approx(n_bytes, abs=0.5e6)


# The table of llama.cpp's converter: ne (the row's length first) and type; E stands for the number of experts.
PUBLISHED: dict[str, tuple[list[object], str]] = {
    "token_embd.weight": ([2880, 201088], "bf16"),
    "output.weight": ([2880, 201088], "bf16"),
    "output_norm.weight": ([2880], "f32"),
    "blk.7.attn_norm.weight": ([2880], "f32"),
    "blk.7.post_attention_norm.weight": ([2880], "f32"),
    "blk.7.attn_q.weight": ([2880, 4096], "bf16"),
    "blk.7.attn_q.bias": ([4096], "f32"),
    "blk.7.attn_k.weight": ([2880, 512], "bf16"),
    "blk.7.attn_k.bias": ([512], "f32"),
    "blk.7.attn_v.weight": ([2880, 512], "bf16"),
    "blk.7.attn_v.bias": ([512], "f32"),
    "blk.7.attn_output.weight": ([4096, 2880], "bf16"),
    "blk.7.attn_output.bias": ([2880], "f32"),
    "blk.7.attn_sinks.weight": ([64], "f32"),
    "blk.7.ffn_gate_inp.weight": ([2880, "E"], "f32"),
    "blk.7.ffn_gate_inp.bias": (["E"], "f32"),
    "blk.7.ffn_gate_exps.weight": ([2880, 2880, "E"], "mxfp4"),
    "blk.7.ffn_up_exps.weight": ([2880, 2880, "E"], "mxfp4"),
    "blk.7.ffn_down_exps.weight": ([2880, 2880, "E"], "mxfp4"),
    "blk.7.ffn_gate_exps.bias": ([2880, "E"], "f32"),
    "blk.7.ffn_up_exps.bias": ([2880, "E"], "f32"),
    "blk.7.ffn_down_exps.bias": ([2880, "E"], "f32"),
}


def test_true_tensors_have_the_published_types_and_shapes(model: str, header: dict[str, Any]) -> None:
    experts = {"20b": 32, "120b": 128}[model]
    found = {name: (ne, kind) for name, kind, ne, _ in header["tensors"] if "blk." not in name or "blk.7." in name}
    expected = {name: ([experts if n == "E" else n for n in ne], kind) for name, (ne, kind) in PUBLISHED.items()}
    assert found == expected


# What llama.cpp's converter writes for both models.
PUBLISHED_KV: dict[str, list[object]] = {
    "general.architecture": ["str", "gpt-oss"],
    "general.type": ["str", "model"],
    "general.file_type": ["u32", 38],
    "general.quantization_version": ["u32", 2],
    "gpt-oss.context_length": ["u32", 131072],
    "gpt-oss.embedding_length": ["u32", 2880],
    "gpt-oss.feed_forward_length": ["u32", 2880],
    "gpt-oss.expert_feed_forward_length": ["u32", 2880],
    "gpt-oss.attention.head_count": ["u32", 64],
    "gpt-oss.attention.head_count_kv": ["u32", 8],
    "gpt-oss.attention.key_length": ["u32", 64],
    "gpt-oss.attention.value_length": ["u32", 64],
    "gpt-oss.attention.sliding_window": ["u32", 128],
    "gpt-oss.attention.layer_norm_rms_epsilon": ["f32", pytest.approx(1e-5, rel=1e-7)],
    "gpt-oss.rope.scaling.type": ["str", "yarn"],
    "gpt-oss.rope.scaling.factor": ["f32", 32.0],
    "gpt-oss.rope.scaling.original_context_length": ["u32", 4096],
    "gpt-oss.rope.scaling.yarn_beta_fast": ["f32", 32.0],
    "gpt-oss.rope.scaling.yarn_beta_slow": ["f32", 1.0],
    "gpt-oss.rope.freq_base": ["f32", 150000.0],
    "gpt-oss.expert_used_count": ["u32", 4],
    "tokenizer.ggml.model": ["str", "gpt2"],
    "tokenizer.ggml.pre": ["str", "gpt-4o"],
    "tokenizer.ggml.tokens": ["arr[str]", 201088],
    "tokenizer.ggml.token_type": ["arr[i32]", 201088],
    "tokenizer.ggml.bos_token_id": ["u32", 199998],
    "tokenizer.ggml.eos_token_id": ["u32", 200002],
    "tokenizer.ggml.padding_token_id": ["u32", 199999],
}


def test_true_keys_have_the_published_types_and_values(model: str, header: dict[str, Any]) -> None:
    layers, experts = {"20b": (24, 32), "120b": (36, 128)}[model]
    sizes = {"gpt-oss.block_count": ["u32", layers], "gpt-oss.expert_count": ["u32", experts]}
    expected = PUBLISHED_KV | sizes
    assert {key: header["kv"].get(key) for key in expected} == expected
    assert header["kv"]["tokenizer.ggml.merges"][0] == "arr[str]"
    assert header["kv"]["tokenizer.chat_template"][0] == "str"


# --- the true shapes in the official HF layout ---

INDEX_SHA256 = {
    "20b": (36_355, "0e085b977c4c9942f85938828e8c989ed7d5cdabf852e4da6a67c116cd502cd1"),
    "120b": (54_511, "ede2655fdc05008561983b6e0829c600727c28d591e071077377059f03a6c00e"),
}
CONFIG_SHA256 = {
    "20b": (1806, "3a2a26ded679375b7928ddeca59764df7cea83220c1961035f6d6e232659e9ce"),
    "120b": (2089, "933aeb666a3fd851133ddd7686414f369bc564c4185fb5704416550879f10566"),
}
# fmt: off
SHARD_BYTES = {
    "20b": [4792272488, 4798702184, 4170342232],
    "120b": [
        4625017896, 4115586736, 4625017888, 4115586752, 4625017896, 4115586696, 4625017856, 4060267176,
        4625017896, 4170906304, 4625017896, 4115586752, 4064660808, 4625017896, 4115586736,
    ],
}
# fmt: on


@pytest.fixture(scope="module")
def official(model: str) -> Plan:
    return plan_demo(Path("gpt-oss"), model)


@pytest.mark.parametrize(
    ("name", "published"), [("model.safetensors.index.json", INDEX_SHA256), ("config.json", CONFIG_SHA256)]
)
def test_index_and_config_are_byte_identical_to_the_published_ones(
    name: str, published: dict[str, tuple[int, str]], model: str, official: Plan
) -> None:
    texts = {path.name: text for path, text in official.layout.texts}
    assert (len(texts[name]), hashlib.sha256(texts[name]).hexdigest()) == published[model]


def test_shards_have_the_published_names_and_sizes(model: str, official: Plan) -> None:
    of = {"20b": 2, "120b": 14}[model]
    names = [f"model-{number:05d}-of-{of:05d}.safetensors" for number in range(of + 1)]
    assert [(file.path.name, file.n_bytes) for file in official.layout.files] == list(
        zip(names, SHARD_BYTES[model], strict=True)
    )


def test_true_checkpoint_has_the_published_bytes_of_tensors(model: str, official: Plan) -> None:
    n_bytes = sum(stored.n_bytes for stored in official.layout.tensors.values())
    assert n_bytes == {"20b": 13_761_264_768, "120b": 65_248_815_744}[model]


def test_memory_of_a_slab_is_bounded_at_every_size(official: Plan) -> None:
    for group in official.groups:
        n_bytes = sum(move.target.n_bytes for move in group.moves) // group.rows * group.slab_rows
        assert n_bytes <= SLAB_BYTES


# --- how work is divided ---


@pytest.fixture
def tiny_plan(tiny: Path, tmp_path: Path) -> Plan:
    return plan(open_checkpoint(tiny), GgufTarget(tmp_path / "tiny.gguf"))


def test_plan_writes_nothing(tiny_plan: Plan, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []


def test_every_tensor_is_moved_once(tiny_plan: Plan) -> None:
    moved = Counter(move.source.tensor.name for move in tiny_plan.moves)
    assert moved == Counter(list(tiny_plan.source.tensors))
    assert all(move.source.tensor == move.target.tensor for move in tiny_plan.moves)


def test_gate_and_up_are_moved_together_and_others_alone(tiny_plan: Plan) -> None:
    together = {tuple(move.source.tensor.name for move in group.moves) for group in tiny_plan.groups}
    pairs = {names for names in together if len(names) > 1}
    assert pairs == {
        (f"layers.{layer}.moe.gate.{part}", f"layers.{layer}.moe.up.{part}")
        for layer in range(4)
        for part in ("weight", "bias")
    }


def test_slabs_cover_every_row_once_and_begin_with_a_leaf(official: Plan) -> None:
    for group in official.groups:
        source = group.moves[0].source
        expected = 0
        for begin, end in group.slabs():
            assert begin == expected
            assert begin < end
            assert next(first for _, first, _ in leaves(source).between(begin, end)) == begin
            expected = end
        assert expected == source.tensor.rows


def test_written_arrays_fill_the_file_without_overlap(tiny_plan: Plan) -> None:
    (file,) = tiny_plan.layout.files
    arrays = {span.array for stored in tiny_plan.layout.tensors.values() for span in stored.spans}
    end = len(file.header)
    for array in sorted(arrays, key=lambda array: array.offset):
        assert 0 <= array.offset - end < 32
        end = array.offset + array.n_bytes
    assert 0 <= file.n_bytes - end < 32


def test_note_says_that_gguf_cannot_say_truncate_false(tiny_plan: Plan) -> None:
    assert any("truncate: false" in note for note in tiny_plan.layout.notes)
    config = tiny_plan.source.config
    truncating = replace(config, yarn=replace(config.yarn, truncate=True))
    layout = GgufTarget(Path("x.gguf")).lay_out(replace(tiny_plan.source, config=truncating))
    assert not any("truncate" in note for note in layout.notes)


# --- sizes ---


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("1", 1), ("10K", 10_000), ("500m", 500_000_000), ("5G", 5_000_000_000), ("2T", 2 * 10**12)]
)
def test_sizes_are_decimal(text: str, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "G", "0", "0G", "-5G", "1.5G", "5GB", "5 G", "\u0665G", "five"])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="expected a whole number with K, M, G or T"):
        parse_size(text)


@pytest.mark.parametrize("limit", [1, 100_000, 1_000_000])
def test_shards_hold_at_most_the_limit_or_one_tensor(limit: int, tiny: Path, tmp_path: Path) -> None:
    layout = plan(open_checkpoint(tiny), GgufTarget(tmp_path / "tiny.gguf", split_max_bytes=limit)).layout
    arrays = [stored.spans[0].array for stored in layout.tensors.values()]
    for file in layout.files:
        sizes = [array.n_bytes for array in arrays if array.file == file.path]
        assert len(sizes) == 1 or sum(sizes) <= limit
    names = [f"tiny-{number:05d}-of-{len(layout.files):05d}.gguf" for number in range(1, len(layout.files) + 1)]
    assert [file.path.name for file in layout.files] == names


def test_limit_above_the_size_gives_one_plain_file(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    whole, split = (
        plan(open_checkpoint(tiny), GgufTarget(out, split_max_bytes=limit)).layout for limit in (None, 10**9)
    )
    assert split.files == whole.files
