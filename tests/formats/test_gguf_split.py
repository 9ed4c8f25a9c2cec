"""Split models: shards as llama.cpp wants them, and no shard missing, foreign or out of order goes unnoticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import pytest
from ggml_gguf import ggml_read
from gguf_files import write_plan, write_with_gguf_py

from gptoss_convert.formats.containers.gguf_reader import GgufFile
from gptoss_convert.formats.containers.gguf_split import (
    plan_gguf_split,
    read_gguf_shards,
    shard_name,
    shard_paths,
)
from gptoss_convert.formats.containers.gguf_types import F32
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import (
    GgufPlan,
    PlannedTensor,
    i32,
    plan_gguf,
    string,
    u16,
    u32,
)
from gptoss_convert.formats.errors import GgufError

KV = {"general.architecture": string("test"), "test.count": u32(7)}
Shape = tuple[int, ...]


def tensors(*sizes: int) -> list[PlannedTensor]:
    """One tensor of each size, in units of 32 bytes."""
    return [(f"t{i}", F32, (8 * size,)) for i, size in enumerate(sizes)]


def names(shards: Sequence[GgufPlan] | Sequence[GgufFile]) -> list[list[str]]:
    return [list(shard.tensors) for shard in shards]


def write_shards(directory: Path, plans: Sequence[GgufPlan], stem: str = "model") -> list[Path]:
    return [
        write_plan(directory / shard_name(stem, number, len(plans)), plan) for number, plan in enumerate(plans, start=1)
    ]


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three shards of one tensor each."""
    return write_shards(tmp_path, plan_gguf_split(KV, tensors(1, 1, 1), 32))


def test_shards_are_named_as_llama_cpp_names_them() -> None:
    assert shard_name("gpt-oss", 2, 13) == "gpt-oss-00002-of-00013.gguf"
    assert shard_paths("dir/m-00001-of-00002.gguf", 2) == [
        Path("dir/m-00001-of-00002.gguf"),
        Path("dir/m-00002-of-00002.gguf"),
    ]


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        pytest.param((1, 1, 1, 1), 2, [["t0", "t1"], ["t2", "t3"]], id="exactly-full"),
        pytest.param((1, 1, 1), 2, [["t0", "t1"], ["t2"]], id="rest"),
        pytest.param((2, 2, 1), 3, [["t0"], ["t1", "t2"]], id="in-order"),
        pytest.param((9, 1, 1), 2, [["t0"], ["t1", "t2"]], id="large-first"),
        pytest.param((1, 9, 1), 2, [["t0"], ["t1"], ["t2"]], id="large-in-the-middle"),
        pytest.param((1, 1), 0, [["t0"], ["t1"]], id="no-room-at-all"),
    ],
)
def test_shards_are_filled_in_order(sizes: Shape, limit: int, expected: list[list[str]]) -> None:
    assert names(plan_gguf_split(KV, tensors(*sizes), 32 * limit)) == expected


def test_padding_counts() -> None:
    assert names(plan_gguf_split(KV, [("a", F32, (1,)), ("b", F32, (1,))], 63)) == [["a"], ["b"]]


@pytest.mark.parametrize("sizes", [(1, 2), ()], ids=["fits", "no-tensors"])
def test_a_single_shard_is_a_plain_file(sizes: Shape) -> None:
    old_split = {"split.no": u16(0), "split.count": u16(9), "split.tensors.count": i32(99)}
    assert plan_gguf_split(KV | old_split, tensors(*sizes), 96) == [plan_gguf(KV, tensors(*sizes))]


def test_metadata_is_in_the_first_shard_and_split_keys_in_all(shards: list[Path]) -> None:
    for number, shard in enumerate(read_gguf_shards(shards[0])):
        split = {"split.no": u16(number), "split.count": u16(3), "split.tensors.count": i32(3)}
        assert shard.kv == (KV | split if number == 0 else split)


def test_ggml_accepts_every_shard(shards: list[Path]) -> None:
    found = [ggml_read(path) for path in shards]
    assert [[tensor[0] for tensor in shard["tensors"]] for shard in found if shard] == [["t0"], ["t1"], ["t2"]]


def test_every_shard_has_the_alignment(tmp_path: Path) -> None:
    plans = plan_gguf_split(KV, tensors(1, 1), 32, alignment=64)
    assert [shard.alignment for shard in read_gguf_shards(write_shards(tmp_path, plans)[0])] == [64, 64]


def test_split_keys_have_the_types_of_gguf_py(tmp_path: Path) -> None:
    write_with_gguf_py(tmp_path / "m.gguf", split_max_tensors=1)
    theirs = read_gguf_shards(tmp_path / shard_name("m", 1, 3))
    ours = read_gguf_shards(write_shards(tmp_path, plan_gguf_split(KV, tensors(1, 1, 1), 32), "ours")[0])
    for key in (gguf.Keys.Split.LLM_KV_SPLIT_NO, "split.count", "split.tensors.count"):
        assert [shard.kv[key] for shard in ours] == [shard.kv[key] for shard in theirs]


def test_shards_of_gguf_py_are_read(tmp_path: Path) -> None:
    write_with_gguf_py(tmp_path / "m.gguf", split_max_tensors=2)
    assert names(read_gguf_shards(tmp_path / shard_name("m", 1, 2))) == [
        ["experts.weight", "norm.weight"],
        ["q.weight"],
    ]


def test_plain_file_is_a_list_of_one(tmp_path: Path) -> None:
    path = write_plan(tmp_path / "any name", plan_gguf(KV, tensors(1)))
    assert names(read_gguf_shards(path)) == names(read_gguf_shards(paths=[path])) == [["t0"]]


@pytest.mark.parametrize("count", [0, 1], ids=["merged-by-llama-gguf-split", "a-split-of-one"])
def test_count_of_none_or_one_is_a_plain_file(count: int, tmp_path: Path) -> None:
    split = {"split.no": u16(0), "split.count": u16(count), "split.tensors.count": i32(1)}
    assert names(read_gguf_shards(write_plan(tmp_path / "m.gguf", plan_gguf(split, tensors(1))))) == [["t0"]]


def test_first_shard_without_tensors_is_read(tmp_path: Path) -> None:
    plans = [
        plan_gguf({"split.no": u16(i), "split.count": u16(2), "split.tensors.count": i32(1)}, tensors(*sizes))
        for i, sizes in enumerate([(), (1,)])
    ]
    assert names(read_gguf_shards(write_shards(tmp_path, plans)[0])) == [[], ["t0"]]


def test_given_paths_may_have_any_name(shards: list[Path]) -> None:
    partial = [path.rename(path.with_name(f"{path.name}.partial")) for path in shards]
    assert names(read_gguf_shards(paths=partial)) == [["t0"], ["t1"], ["t2"]]


def drop_second(shards: list[Path]) -> Path:
    shards[1].unlink()
    return shards[0]


def open_second(shards: list[Path]) -> Path:
    return shards[1]


def open_second_renamed(shards: list[Path]) -> Path:
    return shards[1].rename(shards[1].with_name("part-two.gguf"))


def rename_first(shards: list[Path]) -> Path:
    return shards[0].rename(shards[0].with_name("model.gguf"))


def count_too_many(shards: list[Path]) -> Path:
    return shards[0].rename(shards[0].with_name("model-00001-of-00004.gguf"))


def second_is_the_third(shards: list[Path]) -> Path:
    shutil.copy(shards[2], shards[1])
    return shards[0]


def rewrite_second(shards: list[Path], split: dict[str, GgufValue], name: str = "t1") -> Path:
    kv = {"split.no": u16(1), "split.count": u16(3), "split.tensors.count": i32(3)} | split
    write_plan(shards[1], plan_gguf(kv, [(name, F32, (8,))]))
    return shards[0]


def cut_second(shards: list[Path]) -> Path:
    shards[1].write_bytes(shards[1].read_bytes()[:-32])
    return shards[0]


def plain_second(shards: list[Path]) -> Path:
    write_plan(shards[1], plan_gguf(KV, tensors(1)))
    return shards[0]


SECOND = r"model-00002-of-00003\.gguf: "


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(drop_second, SECOND + r"a shard of the model is missing; expected all 3", id="missing"),
        pytest.param(open_second, r"this is shard 2 of 3.*Open model-00001-of-00003\.gguf instead", id="not-the-first"),
        pytest.param(open_second_renamed, r"this is shard 2 of 3.*Open the first shard", id="not-the-first-renamed"),
        pytest.param(rename_first, r"expected NAME-00001-of-00003\.gguf; found model\.gguf", id="renamed"),
        pytest.param(count_too_many, r"expected model-00001-of-00003\.gguf; found .*-of-00004", id="count-in-name"),
        pytest.param(second_is_the_third, SECOND + r"key 'split.no': .*expected 1; found 2", id="swapped"),
        pytest.param(
            lambda s: rewrite_second(s, {"split.count": u16(4)}), r"'split.count'.*expected 3; found 4", id="count"
        ),
        pytest.param(
            lambda s: rewrite_second(s, {"split.tensors.count": i32(9)}),
            SECOND + r"key 'split.tensors.count': .*expected 3; found 9",
            id="tensors-count",
        ),
        pytest.param(
            lambda s: rewrite_second(s, {"split.no": u32(1)}), r"'split.no'.*expected a U16; found U32", id="type"
        ),
        pytest.param(plain_second, SECOND + r"key 'split.no': .*expected a U16; found nothing", id="no-split-keys"),
        pytest.param(lambda s: rewrite_second(s, {}, "t0"), SECOND + r"tensor 't0': .*in two shards", id="twice"),
        pytest.param(cut_second, SECOND + r"tensor 't1': the file is 32 bytes too short", id="truncated"),
    ],
)
def test_shards_that_do_not_make_one_model_are_refused(
    damage: Callable[[list[Path]], Path], message: str, shards: list[Path]
) -> None:
    with pytest.raises(GgufError, match=message):
        read_gguf_shards(damage(shards))


def test_paths_that_are_not_all_shards_are_refused(shards: list[Path], tmp_path: Path) -> None:
    plain = write_plan(tmp_path / "plain.gguf", plan_gguf(KV, tensors(1)))
    for paths, message in (
        (shards[:2], "wrong number of shards; expected 3; found 2"),
        ([plain, plain], "the shard does not say where it belongs"),
    ):
        with pytest.raises(GgufError, match=message):
            read_gguf_shards(paths=paths)


def test_a_tensor_may_not_be_in_two_shards() -> None:
    with pytest.raises(GgufError, match=r"tensor 't0': the tensor is in two shards"):
        plan_gguf_split(KV, [*tensors(1), *tensors(1)], 32)


def test_more_shards_than_can_be_numbered_are_refused() -> None:
    with pytest.raises(GgufError, match=r"too many shards; expected at most 65535; found 65536"):
        plan_gguf_split(KV, tensors(*([1] * 65536)), 1)
