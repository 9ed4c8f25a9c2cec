"""HF → X → HF and HF → X → Y → HF give the checkpoint back, for all layouts X and Y: tensors, small files, digests.

`original/` has no tokenizer and takes that of `--tokenizer`; the way back from floats goes with `--like`. What Metal
cannot hold is said in `CUT` and `UNSAID`; through all other layouts every byte of every file comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoints import Tensors, copy_of, edit_json, edit_tensors, read_tensors
from command_line import command
from expert_spellings import llm_compressor, packed_in, unsloth
from mxfp4_reference import decoded
from numpy.typing import NDArray
from ways import LAYOUTS, PAIRS, SINGLE, Ways, by_steps

from gptoss_convert.convert import plan as planning

CHAINS = [*SINGLE, *PAIRS]

# A Metal file ends its embeddings with the 16th special token.
CUT = ["lm_head.weight", "model.embed_tokens.weight"]
KEPT_ROWS = 400

# A Metal file has no chat template, and no merges: those that are found again are all that its tokens allow.
UNSAID = ["chat_template.jinja", "tokenizer.json"]


@pytest.fixture(scope="module")
def ways(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    return Ways(tiny, tmp_path_factory.mktemp("ways"))


@pytest.fixture(scope="module")
def expected(tiny: Path) -> Tensors:
    return read_tensors(tiny)


def differing(found: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """Names of what differs, and of what only one side has."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def files(path: Path) -> dict[str, bytes]:
    """A directory's files by name, or the one file."""
    return {one.name: one.read_bytes() for one in (path.iterdir() if path.is_dir() else [path])}


def small_files(directory: Path) -> dict[str, bytes]:
    """Those that are no shards."""
    return {name: content for name, content in files(directory).items() if not name.endswith(".safetensors")}


def is_cut(steps: tuple[str, ...]) -> bool:
    return "metal" in steps


# --- tensors ---


@pytest.mark.parametrize("steps", [steps for steps in CHAINS if not is_cut(steps)], ids=by_steps)
def test_every_tensor_is_byte_identical(steps: tuple[str, ...], ways: Ways, expected: Tensors) -> None:
    assert differing(read_tensors(ways.path(*steps, "hf")), expected) == []


@pytest.mark.parametrize("steps", [steps for steps in CHAINS if is_cut(steps)], ids=by_steps)
def test_every_row_that_metal_keeps_is_byte_identical(steps: tuple[str, ...], ways: Ways, expected: Tensors) -> None:
    found = read_tensors(ways.path(*steps, "hf"))
    assert [name for name in differing(found, expected) if name not in CUT] == []
    for name in CUT:
        rows, cols = expected[name].shape
        assert (found[name].dtype, found[name].shape) == ("BF16", [rows, cols])
        assert found[name].data[: KEPT_ROWS * cols * 2] == expected[name].data[: KEPT_ROWS * cols * 2]


@pytest.fixture(scope="module")
def unverified(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    return Ways(tiny, tmp_path_factory.mktemp("unverified"), ("--no-verify",))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_differs_without_verification(layout: str, ways: Ways, unverified: Ways) -> None:
    """Then bytes that do not change are copied by the system."""
    assert differing(read_tensors(unverified.path(layout, "hf")), read_tensors(ways.path(layout, "hf"))) == []
    assert differing(files(unverified.path(layout)), files(ways.path(layout))) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_differs_in_slabs_of_a_few_rows(
    layout: str, ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of `tiny` fit into one slab, those of the true shapes need hundreds."""
    monkeypatch.setattr(planning, "SLAB_BYTES", 5000)
    monkeypatch.setattr(planning, "leaf_rows", lambda _row_bytes: 8)
    small = Ways(ways.start, tmp_path)
    assert differing(read_tensors(small.path(layout, "hf")), read_tensors(ways.path(layout, "hf"))) == []


SPELLINGS: dict[str, Callable[[Tensors], Callable[[Tensors], None]]] = {
    "Unsloth's": lambda _: unsloth,
    "llm-compressor's": lambda _: llm_compressor,
    "mixed with packed": lambda packed: packed_in(packed, 0, 3),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_tensor_is_byte_identical_from_experts_in_another_spelling(
    spelling: str, ways: Ways, expected: Tensors, tmp_path: Path
) -> None:
    source = copy_of(ways.path("bf16"), tmp_path / "tiny")
    edit_tensors(source, SPELLINGS[spelling](expected))
    outcome = command("to-mxfp4", source, tmp_path / "hf", "--shard-plan", "1M", "--like", ways.start, "--json")
    assert outcome.json["verified"] is True
    assert differing(read_tensors(tmp_path / "hf"), expected) == []


# --- files ---


def test_every_layout_is_another(ways: Ways) -> None:
    """Else a chain through one would prove nothing of it."""
    names = [command("inspect", ways.path(*steps), "--json").json["layout"] for steps in [(), *((x,) for x in LAYOUTS)]]
    assert names == ["hf", "original", "gguf", "ollama-legacy", "mlx", "metal", "hf-bf16"]


@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("source", [layout for layout in LAYOUTS if layout != "metal"])
def test_every_file_of_a_layout_is_byte_identical_whatever_it_is_made_of(source: str, target: str, ways: Ways) -> None:
    assert differing(files(ways.path(source, target)), files(ways.path(target))) == []


@pytest.mark.parametrize("steps", [steps for steps in CHAINS if not is_cut(steps)], ids=by_steps)
def test_every_file_of_the_directory_is_byte_identical(steps: tuple[str, ...], ways: Ways) -> None:
    assert differing(files(ways.path(*steps, "hf")), files(ways.start)) == []


@pytest.mark.parametrize("steps", [steps for steps in CHAINS if is_cut(steps)], ids=by_steps)
def test_every_small_file_but_the_template_and_merges_is_byte_identical(steps: tuple[str, ...], ways: Ways) -> None:
    """A later `original/` takes the tokenizer's files from `--tokenizer`, so nothing is lost."""
    unsaid = [] if "original" in steps[steps.index("metal") :] else UNSAID
    assert differing(small_files(ways.path(*steps, "hf")), small_files(ways.start)) == unsaid


KEYS = {"initializer_range": 0.05, "trained_by": "us"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_config_keys_that_do_not_change_the_model_are_lost_in_original_and_metal_only(
    layout: str, ways: Ways, tmp_path: Path
) -> None:
    start = copy_of(ways.start, tmp_path / "tiny")
    edit_json(start / "config.json", lambda config: config.update(KEYS))
    (tmp_path / "ways").mkdir()
    back = Ways(start, tmp_path / "ways").path(layout, "hf")
    found, before = (json.loads((path / "config.json").read_bytes()) for path in (back, start))
    assert differing(found, before) == (sorted(KEYS) if layout in ("original", "metal") else [])


# --- what is F32 in GGUF ---

F32_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.bias": "attn_output.bias",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router.weight": "ffn_gate_inp.weight",
    "mlp.router.bias": "ffn_gate_inp.bias",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
}


@pytest.mark.parametrize("name", F32_NAMES)
def test_norms_biases_sinks_and_router_are_value_identical_in_f32_in_gguf(
    name: str, ways: Ways, expected: Tensors
) -> None:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(ways.path("gguf")).tensors}
    found, before = tensors[f"blk.1.{F32_NAMES[name]}"], expected[f"model.layers.1.{name}"]
    assert found.tensor_type == gguf.GGMLQuantizationType.F32
    assert found.data.tobytes() == (np.frombuffer(before.data, np.uint16).astype(np.uint32) << 16).tobytes()


# --- BF16 without --like ---

Packed = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def without_like(ways: Ways, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The tensors of HF → BF16 → HF."""
    out = tmp_path_factory.mktemp("exact") / "tiny"
    assert command("to-mxfp4", ways.path("bf16"), out, "--shard-plan", "1M", "--quiet").code == 0
    return read_tensors(out)


def packed(tensors: Tensors) -> Packed:
    """The blocks of all experts as codes uint8 [n, 32], and their scales uint8 [n]."""
    names = sorted(name for name in tensors if name.endswith("_blocks"))
    blocks = np.concatenate([np.frombuffer(tensors[name].data, np.uint8).reshape(-1, 16) for name in names])
    scales = [np.frombuffer(tensors[name.replace("_blocks", "_scales")].data, np.uint8) for name in names]
    return np.stack([blocks & 15, blocks >> 4], axis=2).reshape(-1, 32), np.concatenate(scales)


def test_from_bf16_alone_everything_but_experts_is_byte_identical(without_like: Tensors, expected: Tensors) -> None:
    differ = differing(without_like, expected)
    assert [name for name in differ if not name.endswith(("_blocks", "_scales"))] == []


def test_from_bf16_alone_experts_are_value_identical(without_like: Tensors, expected: Tensors) -> None:
    both = (packed(without_like), packed(expected))
    found, before = (decoded(codes, scales.astype(int) - 127) for codes, scales in both)
    assert found.tobytes() == before.tobytes()


def test_from_bf16_alone_experts_are_byte_identical_but_where_two_scales_are_exact(
    without_like: Tensors, expected: Tensors
) -> None:
    """A block without ±0.5 and ±1.5 could have a higher scale, one without ±4 and ±6 a lower one."""
    (codes, scales), (found_codes, found_scales) = packed(expected), packed(without_like)
    one_scale = np.isin(codes & 7, [1, 3]).any(axis=1) & np.isin(codes & 7, [6, 7]).any(axis=1)
    same = (codes == found_codes).all(axis=1) & (scales == found_scales)
    assert 0 < np.count_nonzero(~one_scale) < 100
    assert same[one_scale].all()


# --- digests ---

EXPERTS = ("moe.gate.weight", "moe.up.weight", "moe.down.weight")
EMBEDDINGS = ("embedding.weight",)  # and unembedding.weight
MATRICES = (*EXPERTS, *EMBEDDINGS, *(f"attention.{name}.weight" for name in "qkvo"))

# The ends of the names whose digests are others, because the layout has the tensor in another encoding, or cut.
OTHER_DIGESTS: dict[str, Callable[[str], bool]] = {
    "original": lambda _: False,
    "mlx": lambda _: False,
    "gguf": lambda name: not name.endswith(MATRICES),
    "ollama-legacy": lambda name: not name.endswith(MATRICES),
    "metal": lambda name: name.endswith(EMBEDDINGS),
    "bf16": lambda name: name.endswith(EXPERTS),
}


def digests(ways: Ways, *steps: str) -> dict[str, Any]:
    """Of what the steps lead to, as the way from there to HF tells them."""
    found = ways.report(*steps, "hf")["digests"]
    assert len(found) == 4 * 19 + 3
    return dict(found)


@pytest.mark.parametrize("layout", OTHER_DIGESTS)
def test_digests_do_not_depend_on_the_layout_where_the_encoding_is_the_same(layout: str, ways: Ways) -> None:
    """GGUF has F32 where HF has BF16, BF16 has decoded experts; Metal's embeddings end earlier."""
    before = digests(ways)
    assert differing(digests(ways, layout), before) == sorted(filter(OTHER_DIGESTS[layout], before))


def test_digests_of_a_metal_file_are_those_of_the_rows_it_keeps(ways: Ways) -> None:
    assert ways.report("metal", "metal")["digests"] == ways.report("metal")["digests"]


def test_bf16_directory_carries_the_digests_of_the_packed_experts(ways: Ways) -> None:
    kept = json.loads((ways.path("bf16") / "mxfp4_digests.json").read_bytes())
    assert kept["tensors"] == {name: value for name, value in digests(ways).items() if name.endswith(EXPERTS)}
