"""What models are compared on: our texts, a file's, random ids; and what is refused, with the line that is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import copy_of, edit_json
from transformers import AutoTokenizer
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift import prompts as subject
from gptoss_convert.convert.drift.prompt_texts import TEXTS
from gptoss_convert.convert.drift.prompts import Prompts, make_prompts
from gptoss_convert.formats.errors import UsageError

WINDOW = 32

Refused = Callable[[bytes, str], str]


@pytest.fixture
def of_file(a: Checkpoint, tmp_path: Path) -> Callable[..., Prompts]:
    """The prompts of a file with these bytes."""

    def read(content: bytes, name: str = "prompts.txt", n_tokens: int = 256) -> Prompts:
        path = tmp_path / name
        path.write_bytes(content)
        return make_prompts(a, a, file=path, n_tokens=n_tokens)

    return read


# --- ours ---


def test_our_texts_are_of_several_domains() -> None:
    assert list(TEXTS) == ["chat", "tool call", "languages", "code", "maths"]
    assert "<|channel|>commentary to=functions." in TEXTS["tool call"]
    assert TEXTS["tool call"].count("<|call|>") == 2
    assert "```python" in TEXTS["code"]
    assert "<|channel|>analysis" in TEXTS["maths"]
    letters = {"German": "ä", "Spanish": "¿", "Japanese": "の", "Russian": "я", "Arabic": "ض"}
    assert all(letter in TEXTS["languages"] for letter in letters.values())


def test_our_texts_are_harmony() -> None:
    for text in TEXTS.values():
        messages = text.split("<|start|>")[1:]
        assert all(message.count("<|message|>") == 1 for message in messages)
        assert all(message.endswith(("<|end|>", "<|call|>", "<|return|>")) for message in messages)
        calls = [message for message in messages if message.startswith("assistant") and "to=" in message]
        assert all(message.endswith("<|call|>") for message in calls)


def test_no_two_of_our_texts_begin_alike(a: Checkpoint) -> None:
    """What they begin with in common would be counted as often as there are texts."""
    starts = [tuple(prompt.tokens[:32].tolist()) for prompt in make_prompts(a, a).prompts]
    assert len(set(starts)) == len(TEXTS)


def test_our_texts_are_longer_than_the_official_window_in_any_vocabulary() -> None:
    """A token of the official vocabulary is 4 characters of English on average, and seldom more than 6."""
    for name, text in TEXTS.items():
        assert len(text) / (2 if name == "languages" else 6) > 128


def test_each_text_is_cut_to_the_tokens_asked_for(a: Checkpoint) -> None:
    found = make_prompts(a, a, n_tokens=100)
    assert [(one.name, len(one.tokens)) for one in found.prompts] == [(name, 100) for name in TEXTS]
    assert found.spans == ((0, 100), (100, 200), (200, 300), (300, 400), (400, 500))
    assert len(found.tokens) == 500
    assert found.notes == ()


def test_tokens_spell_the_text(tiny: Path, a: Checkpoint) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for prompt in make_prompts(a, a, n_tokens=4096).prompts:
        assert tokenizer.decode(prompt.tokens) == TEXTS[prompt.name]
        if TEXTS[prompt.name].isascii():
            assert "".join(prompt.pieces) == TEXTS[prompt.name]


def test_places_are_found_again(a: Checkpoint) -> None:
    found = make_prompts(a, a, n_tokens=100)
    assert found.at(0) == "token 0 of 'chat'"
    assert found.at(299) == "token 99 of 'languages'"
    assert found.at(300) == "token 0 of 'code'"


# --- a file's ---


def test_blank_lines_separate_the_prompts_of_a_text(of_file: Callable[..., Prompts]) -> None:
    found = of_file(b"\n\nfirst prompt\nits second line\n \n\r\nsecond <|end|>\r\n")
    assert [(one.name, "".join(one.pieces)) for one in found.prompts] == [
        ("line 3", "first prompt\nits second line"),
        ("line 7", "second <|end|>"),
    ]
    assert found.prompts[1].pieces[-1] == "<|end|>"
    assert found.source.endswith("prompts.txt")


def test_each_line_of_jsonl_is_a_prompt(of_file: Callable[..., Prompts]) -> None:
    lines = [{"text": "one\n\ntwo"}, {"name": "mine", "text": "three four"}]
    found = of_file("\n".join(map(json.dumps, lines)).encode() + b"\n\n", "prompts.jsonl")
    assert [(one.name, "".join(one.pieces)) for one in found.prompts] == [
        ("line 1", "one\n\ntwo"),
        ("mine", "three four"),
    ]


def test_a_byte_order_mark_is_no_text(of_file: Callable[..., Prompts]) -> None:
    assert "".join(of_file(b"\xef\xbb\xbfsome text").prompts[0].pieces) == "some text"


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "p.txt", "there is no prompt in the file"),
        (b" \n\n\t\n", "p.txt", "there is no prompt in the file"),
        (b"", "p.jsonl", "there is no prompt in the file"),
        (b"good\n\nna\xefve\n", "p.txt", "line 3 is not UTF-8; found byte 0xef at offset 8"),
        (b"good text\n\n\nx", "p.txt", "line 4 is too short to be compared on; expected at least 2 tokens; found 1"),
        (b'{"text": "fine text"}\n{"text": ""}', "p.jsonl", "line 2 is too short"),
        (b'{"text": "fine text"}\nnot json', "p.jsonl", "line 2"),
        (b'{"prompt": "fine text"}', "p.jsonl", "line 1 has no text; expected an object such as"),
        (b'["text"]', "p.jsonl", "line 1 has no text"),
        (b'{"text": 3}', "p.jsonl", "line 1 has no text"),
    ],
)
def test_a_file_that_is_no_prompts_is_refused(
    content: bytes, name: str, message: str, of_file: Callable[..., Prompts]
) -> None:
    with pytest.raises(UsageError) as caught:
        of_file(content, name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_file_that_is_not_there_is_refused(a: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        make_prompts(a, a, file=tmp_path / "none.txt")


def test_a_directory_is_no_file_of_prompts(a: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        make_prompts(a, a, file=tmp_path)


def test_too_large_a_file_is_refused_before_it_is_read(
    of_file: Callable[..., Prompts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_MAX_FILE_BYTES", 20)
    with pytest.raises(UsageError, match="too large for prompts; expected at most 20 bytes"):
        of_file(b"x" * 21)


def test_too_many_tokens_together_are_refused(of_file: Callable[..., Prompts], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_TOKENS", 300)
    with pytest.raises(UsageError, match=r"expected at most 300 tokens; found 400 in 4 prompts"):
        of_file(b"\n\n".join([b"x y " * 100] * 4), n_tokens=100)


@pytest.mark.parametrize("n_tokens", [-1, 0, 1, 16_385])
def test_a_number_of_tokens_that_cannot_be_is_refused(n_tokens: int, a: Checkpoint) -> None:
    with pytest.raises(UsageError, match=r"expected --tokens of 2 to 16,384; found"):
        make_prompts(a, a, n_tokens=n_tokens)


def test_prompts_within_the_window_are_noted(of_file: Callable[..., Prompts], a: Checkpoint) -> None:
    (note,) = of_file(b"short text").notes
    assert "No prompt is longer than the sliding window of 32 tokens" in note
    assert make_prompts(a, a, n_tokens=WINDOW).notes == (note,)
    assert make_prompts(a, a, n_tokens=WINDOW + 1).notes == ()


# --- tokenizers ---


@pytest.mark.parametrize("layout", ["gguf", "mlx", "bf16", "ollama-legacy"])
def test_every_layout_has_the_same_tokenizer(layout: str, a: Checkpoint, ways: Ways) -> None:
    found = make_prompts(a, open_checkpoint(ways.path(layout)))
    assert found.notes == ()
    assert found.tokens.tolist() == make_prompts(a, a).tokens.tolist()


def test_tokens_that_one_layout_cannot_hold_do_not_matter(a: Checkpoint, ways: Ways) -> None:
    """A Metal file has no rows from <|reserved_200014|> on, and its merges are made of its tokens."""
    metal = open_checkpoint(ways.path("metal"))
    assert make_prompts(a, metal).tokens.tolist() == make_prompts(metal, a).tokens.tolist()
    assert make_prompts(a, metal).tokens.tolist() == make_prompts(a, a).tokens.tolist()


def test_tokenizers_that_differ_are_refused_by_token(tiny: Path, a: Checkpoint, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / "other")

    def swap(content: dict) -> None:
        vocab = content["model"]["vocab"]
        first, second = (next(token for token, number in vocab.items() if number == one) for one in (70, 71))
        vocab[first], vocab[second] = 71, 70

    edit_json(other / "tokenizer.json", swap)
    with pytest.raises(UsageError, match=r"key 'token 70': the tokenizers differ.*expected '.', as in .*; found '.'"):
        make_prompts(a, open_checkpoint(other))


def without_tokenizer(tiny: Path, directory: Path) -> Checkpoint:
    shutil.copytree(tiny, directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).unlink(missing_ok=True)
    return open_checkpoint(directory)


def test_the_tokenizer_of_either_will_do(tiny: Path, a: Checkpoint, tmp_path: Path) -> None:
    bare = without_tokenizer(tiny, tmp_path / "bare")
    expected = make_prompts(a, a).tokens.tolist()
    assert make_prompts(a, bare).tokens.tolist() == make_prompts(bare, a).tokens.tolist() == expected


def test_without_a_tokenizer_tokens_are_seeded_and_that_is_noted(tiny: Path, tmp_path: Path) -> None:
    bare = without_tokenizer(tiny, tmp_path / "bare")
    found, again = (make_prompts(bare, bare, n_tokens=50) for _ in range(2))
    assert found.source == "seeded random tokens"
    assert found.tokens.tolist() == again.tokens.tolist()
    assert [len(one.tokens) for one in found.prompts] == [50, 50, 50]
    assert len({tuple(one.tokens.tolist()) for one in found.prompts}) == 3
    assert "Neither checkpoint has a tokenizer" in found.notes[0]


def test_random_tokens_are_in_both_vocabularies(tiny: Path, tmp_path: Path) -> None:
    bare = without_tokenizer(tiny, tmp_path / "bare")
    small = replace(bare, config=replace(bare.config, vocab_size=10))
    assert np.max(make_prompts(bare, small).tokens) < 10


def test_a_file_without_a_tokenizer_is_refused(tiny: Path, tmp_path: Path) -> None:
    bare = without_tokenizer(tiny, tmp_path / "bare")
    file = tmp_path / "p.txt"
    file.write_text("some text", encoding="utf-8")
    with pytest.raises(UsageError, match="prompts need a tokenizer, and neither checkpoint has one"):
        make_prompts(bare, bare, file=file)
