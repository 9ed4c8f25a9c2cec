"""A directory of safetensors: what is read, and each contradiction between index, shards and directory by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from gptoss_convert.formats.containers.safetensors_index import MAX_INDEX_BYTES, read_safetensors_directory
from gptoss_convert.formats.errors import GptOssConvertError, SafetensorsError

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00000-of-00001.safetensors", "model-00001-of-00001.safetensors"
SHARDS = {FIRST: {"a": np.zeros(4, np.uint8), "b": np.zeros(2, np.float32)}, SECOND: {"c": np.zeros(3, np.uint8)}}
WEIGHT_MAP = {"a": FIRST, "b": FIRST, "c": SECOND}
TOTAL = 15


def index_text(weight_map: object = WEIGHT_MAP, **metadata: object) -> str:
    return json.dumps({"metadata": {"total_size": TOTAL} | metadata, "weight_map": weight_map})


def write_shards(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, tensors in SHARDS.items():
        (directory / name).write_bytes(save(tensors))
    (directory / INDEX).write_text(index_text(), encoding="utf-8")
    return directory


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "checkpoint")


def names_by_file(directory: Path) -> dict[str, set[str]]:
    return {header.path.name: set(header.entries) for header in read_safetensors_directory(directory)}


ALL = {FIRST: {"a", "b"}, SECOND: {"c"}}


def refuse(directory: Path, message: str) -> SafetensorsError:
    with pytest.raises(SafetensorsError, match=message) as caught:
        read_safetensors_directory(directory)
    assert caught.value.remedy
    return caught.value


def test_shards_are_read_by_their_index(checkpoint: Path) -> None:
    assert names_by_file(checkpoint) == ALL
    assert [header.path for header in read_safetensors_directory(checkpoint)] == [
        checkpoint / FIRST,
        checkpoint / SECOND,
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "consolidated.00.safetensors"])
def test_a_single_file_needs_no_index(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(save(SHARDS[FIRST]))
    assert names_by_file(tmp_path) == {name: {"a", "b"}}


def test_the_index_may_have_another_name(checkpoint: Path) -> None:
    (checkpoint / INDEX).rename(checkpoint / "weights.safetensors.index.json")
    assert names_by_file(checkpoint) == ALL


def test_hidden_files_and_subdirectories_are_not_looked_at(checkpoint: Path) -> None:
    (checkpoint / f"._{FIRST}").write_bytes(b"resource fork")
    (checkpoint / "original").mkdir()
    (checkpoint / "original" / "model.safetensors").write_bytes(b"damaged")
    assert names_by_file(checkpoint) == ALL


@pytest.mark.parametrize("text", [json.dumps({"weight_map": WEIGHT_MAP}), index_text(total_parameters=9, more=[[1]])])
def test_metadata_may_be_absent_or_hold_more(checkpoint: Path, text: str) -> None:
    (checkpoint / INDEX).write_text(text, encoding="utf-8")
    assert names_by_file(checkpoint) == ALL


INDEX_RULES = {
    "not JSON": ("{", "the file is not valid JSON"),
    "an array": ("[]", "the index is not a JSON object; found \\[\\]"),
    "tensor twice": (index_text().replace('"b"', '"a"'), "key 'a': the file has the same key twice"),
    "too large": (" " * (MAX_INDEX_BYTES + 1), "too large; expected at most 8,388,608 bytes"),
    "too deep": ("[" * 100_000, "nested too deeply"),
    "no weight_map": ("{}", "key 'weight_map': the index names no shard; .*; found nothing"),
    "weight_map empty": (index_text({}), "the index names no shard; .*; found {}"),
    "weight_map a list": (index_text([FIRST]), "the index names no shard"),
    "metadata a list": ('{"metadata": [], "weight_map": {}}', "key 'metadata': the value is not an object"),
    "total a float": (index_text(total_size=15.0), "'metadata.total_size': .* expected 15; found 15.0"),
    "total a string": (index_text(total_size="15"), "expected 15; found '15'"),
    "total too large": (
        index_text(total_size=16),
        "expected 15; found 16.*If the shards are right, set the total to 15",
    ),
    "total too small": (index_text(total_size=14), "expected 15; found 14"),
    "tensor in no shard": (index_text(WEIGHT_MAP | {"d": FIRST}), f"'d': the tensor is in no shard; expected {FIRST}"),
    "tensor elsewhere": (
        index_text(WEIGHT_MAP | {"a": SECOND}),
        f"'a': the tensor is in another shard than the index says; expected {SECOND}; found {FIRST}",
    ),
    "tensor unnamed": (index_text({"a": FIRST, "c": SECOND}), f"'b': the index does not name .* found {FIRST}"),
    "shard unnamed": (
        index_text({"a": FIRST, "b": FIRST}),
        f"the index does not name lie beside it; found {SECOND}.*Move",
    ),
    "shard missing": (
        index_text(WEIGHT_MAP | {"d": "lost.safetensors"}),
        "1 of 3 shards missing; expected lost.safetensors. Download the missing shards",
    ),
}


@pytest.mark.parametrize(("text", "message"), INDEX_RULES.values(), ids=INDEX_RULES)
def test_a_wrong_index_is_refused_by_name(checkpoint: Path, text: str, message: str) -> None:
    (checkpoint / INDEX).write_text(text, encoding="utf-8")
    assert refuse(checkpoint, message).file == str(checkpoint / INDEX)


NO_PLAIN_NAMES = {
    "empty": "",
    "dot": ".",
    "parent": "..",
    "in the parent": "../outside.safetensors",
    "in a sub-directory": "original/model.safetensors",
    "absolute": "/etc/passwd",
    "backslashes": "..\\outside.safetensors",
    "share": "\\\\server\\share.safetensors",
    "drive": "C:outside.safetensors",
    "zero byte": "outside\0.safetensors",
    "hidden": ".outside.safetensors",
    "number": 5,
    "list": [FIRST],
    "null": None,
}


@pytest.mark.parametrize("shard", NO_PLAIN_NAMES.values(), ids=NO_PLAIN_NAMES)
def test_a_shard_has_a_plain_name(checkpoint: Path, shard: object) -> None:
    (checkpoint.parent / "outside.safetensors").write_bytes(save(SHARDS[SECOND]))
    (checkpoint / INDEX).write_text(index_text(WEIGHT_MAP | {"c": shard}), encoding="utf-8")
    refuse(checkpoint, "tensor 'c': the shard has no plain name; expected the name of a file beside the index")


def test_a_tensor_in_two_shards_is_refused(checkpoint: Path) -> None:
    (checkpoint / SECOND).write_bytes(save(SHARDS[SECOND] | {"a": np.zeros(4, np.uint8)}))
    refuse(checkpoint, f"tensor 'a': the tensor is in two shards; expected one; found {FIRST} and {SECOND}")


def test_all_missing_shards_are_named(checkpoint: Path) -> None:
    (checkpoint / FIRST).unlink()
    (checkpoint / SECOND).unlink()
    refuse(checkpoint, f"2 of 2 shards missing; expected {FIRST}, {SECOND}")


def test_a_truncated_shard_is_named(checkpoint: Path) -> None:
    shard = checkpoint / FIRST
    shard.write_bytes(shard.read_bytes()[:-2])
    assert refuse(checkpoint, r"the file is truncated \(bytes missing: 2\)").file == str(shard)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, "cannot tell which files make the checkpoint; expected one \\*.safetensors, .*; found none")


def test_two_files_need_an_index(checkpoint: Path) -> None:
    (checkpoint / INDEX).unlink()
    refuse(checkpoint, f"expected one \\*.safetensors, or shards with their index; found {FIRST}, {SECOND}")


def test_two_indexes_are_refused(checkpoint: Path) -> None:
    (checkpoint / "old.safetensors.index.json").write_text(index_text(), encoding="utf-8")
    refuse(checkpoint, f"expected one \\*.safetensors.index.json.*; found {INDEX}, old.safetensors.index.json")


@pytest.mark.parametrize("name", [FIRST, "absent"])
def test_what_is_no_directory_is_refused(checkpoint: Path, name: str) -> None:
    refuse(checkpoint / name, "not a readable directory")


def cached(cache: Path) -> Path:
    """The snapshot directory of a Hugging Face cache with the same checkpoint: links into blobs/."""
    repository = cache / "models--org--name"
    blobs = write_shards(repository / "blobs")
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for i, name in enumerate([FIRST, SECOND, INDEX]):
        (blobs / name).rename(blobs / str(i))
        (snapshot / name).symlink_to(Path("../../blobs") / str(i))
    return snapshot


def test_a_hugging_face_snapshot_is_read(tmp_path: Path) -> None:
    assert names_by_file(cached(tmp_path)) == ALL


def test_a_link_to_a_hugging_face_snapshot_is_read(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(cached(tmp_path / "cache"), target_is_directory=True)
    assert names_by_file(link) == ALL


def test_a_link_inside_the_directory_is_read(checkpoint: Path) -> None:
    (checkpoint / "stored").mkdir()
    (checkpoint / FIRST).rename(checkpoint / "stored" / "0")
    (checkpoint / FIRST).symlink_to(Path("stored") / "0")
    assert names_by_file(checkpoint) == ALL


@pytest.mark.parametrize("name", [FIRST, INDEX])
def test_a_link_out_of_the_directory_is_refused(checkpoint: Path, name: str) -> None:
    outside = checkpoint.parent / "outside"
    (checkpoint / name).rename(outside)
    (checkpoint / name).symlink_to(outside)
    refuse(checkpoint, f"{name}: the file is a link out of the checkpoint; expected a file in .*; found .*outside")


def test_a_single_file_that_links_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(save(SHARDS[FIRST]))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model.safetensors").symlink_to(tmp_path / "outside")
    refuse(tmp_path / "checkpoint", "model.safetensors: the file is a link out of the checkpoint")


def shared(cache: Path) -> Path:
    """Such a snapshot, a file of which is kept where repositories share their contents."""
    snapshot = cached(cache)
    (cache / "blobs").mkdir()
    (snapshot / FIRST).resolve().rename(cache / "blobs" / "0")
    (snapshot / FIRST).unlink()
    (snapshot / FIRST).symlink_to(cache / "blobs" / "0")
    return snapshot


def test_contents_that_repositories_share_are_read(tmp_path: Path) -> None:
    snapshot = shared(tmp_path)
    (tmp_path / "blobs" / ".huggingface-shared-blobs").touch()
    assert names_by_file(snapshot) == ALL


def test_shared_contents_without_their_mark_are_outside(tmp_path: Path) -> None:
    refuse(shared(tmp_path), f"{FIRST}: the file is a link out of the checkpoint")


@pytest.mark.parametrize("target", ["models--org--name/refs/0", "models--org--other/blobs/0", "outside"])
def test_a_snapshot_that_links_out_of_its_blobs_is_refused(tmp_path: Path, target: str) -> None:
    snapshot = cached(tmp_path)
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (snapshot / FIRST).resolve().rename(tmp_path / target)
    (snapshot / FIRST).unlink()
    (snapshot / FIRST).symlink_to(tmp_path / target)
    refuse(snapshot, f"{FIRST}: the file is a link out of the checkpoint")


def test_blobs_beside_an_ordinary_directory_are_outside(checkpoint: Path) -> None:
    blobs = checkpoint.parent / "blobs"
    blobs.mkdir()
    (checkpoint / FIRST).rename(blobs / "0")
    (checkpoint / FIRST).symlink_to(blobs / "0")
    refuse(checkpoint, "the file is a link out of the checkpoint")


def test_a_dangling_link_and_a_loop_are_refused(checkpoint: Path) -> None:
    (checkpoint / FIRST).unlink()
    (checkpoint / FIRST).symlink_to("nowhere")
    refuse(checkpoint, f"{FIRST}: there is no such file")
    (checkpoint / FIRST).unlink()
    (checkpoint / FIRST).symlink_to(FIRST)
    refuse(checkpoint, f"{FIRST}: the file cannot be read")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("damaged"))


DAMAGED_INDEX = st.lists(
    st.tuples(st.integers(0, len(index_text()) - 1), st.integers(0, 255) | st.sampled_from(b'[]{}",:/\\. 01')),
    min_size=1,
    max_size=3,
)


@given(flips=DAMAGED_INDEX)
@settings(derandomize=True, max_examples=300, deadline=None)
def test_a_damaged_index_is_refused_or_changes_nothing(damaged: Path, flips: list[tuple[int, int]]) -> None:
    text = bytearray(index_text().encode())
    for position, byte in flips:
        text[position] = byte
    (damaged / INDEX).write_bytes(text)
    try:
        found = names_by_file(damaged)
    except GptOssConvertError:
        return
    assert found == ALL


def test_every_truncated_index_is_refused(damaged: Path) -> None:
    text = index_text().encode()
    for length in range(len(text)):
        (damaged / INDEX).write_bytes(text[:length])
        with pytest.raises(SafetensorsError):
            read_safetensors_directory(damaged)
