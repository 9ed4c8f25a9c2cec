"""The tokenizer in a Metal file: what OpenAI's script would write, what comes back, what cannot be kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from metal_script import REGEX, SPECIALS, UUIDS
from tokenizer_directory import N_TEXT, VOCAB_SIZE, edit, write_tokenizer
from tokenizers import Tokenizer as Reference

from gptoss_convert.formats.containers.metal_types import MetalTokenizer
from gptoss_convert.formats.errors import TokenizerError
from gptoss_convert.model.harmony import special_tokens
from gptoss_convert.model.metal_tokenizer import (
    dropped_tokens,
    from_metal_tokenizer,
    metal_to_facts,
    metal_to_tokenizer,
    to_metal_tokenizer,
)
from gptoss_convert.model.tokenizer import Tokenizer, read_tokenizer
from gptoss_convert.model.tokenizer_json import AddedToken, read_tokenizer_json

FILE = Path("model.bin")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def metal(tokenizer: Tokenizer) -> MetalTokenizer:
    return to_metal_tokenizer(tokenizer, VOCAB_SIZE)


def with_specials(tokenizer: Tokenizer, changed: dict[int, AddedToken]) -> Tokenizer:
    return replace(tokenizer, specials=tokenizer.specials | changed)


def test_the_regex_is_that_of_openais_script(metal: MetalTokenizer) -> None:
    assert metal.regex == REGEX


@pytest.mark.parametrize(("old", "new"), [(r"\r\n", "\r\n"), ("/", r"\/")])
def test_other_spellings_of_the_regex_are_the_same(tokenizer: Tokenizer, old: str, new: str) -> None:
    assert tokenizer.pattern
    spelled = replace(tokenizer, pattern=tokenizer.pattern.replace(old, new))
    assert spelled.pattern != tokenizer.pattern
    assert to_metal_tokenizer(spelled, VOCAB_SIZE).regex == REGEX


def test_another_regex_is_kept(tokenizer: Tokenizer) -> None:
    assert to_metal_tokenizer(replace(tokenizer, pattern=r"\s+"), VOCAB_SIZE).regex == r"\s+"


def test_the_16_special_tokens_are_those_of_openais_script(metal: MetalTokenizer) -> None:
    expected = [UUID(UUIDS[name]) if name in UUIDS else None for name in SPECIALS]
    assert metal.specials == dict(enumerate(expected, N_TEXT))
    assert metal.n_tokens == N_TEXT + 16


def test_tokens_are_bytes(metal: MetalTokenizer, tokenizer: Tokenizer) -> None:
    """transformers spells byte 0x20 as U+0120; printable ASCII stands for itself."""
    assert len(metal.tokens) == N_TEXT
    assert {bytes([byte]) for byte in range(256)} <= set(metal.tokens)
    place = next(token_id for token_id, text in tokenizer.tokens.items() if text.startswith("Ġ") and len(text) > 2)
    assert metal.tokens[place] == tokenizer.tokens[place].replace("Ġ", " ").encode()


def test_text_tokens_and_specials_come_back(metal: MetalTokenizer, tokenizer: Tokenizer) -> None:
    vocabulary = from_metal_tokenizer(metal, FILE)
    assert dict(enumerate(vocabulary.tokens)) == tokenizer.tokens
    assert vocabulary.specials == {token_id: added.content for token_id, added in tokenizer.specials.items()}
    assert vocabulary.pattern == tokenizer.pattern


def test_merges_join_the_lowest_ids_first() -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b"bc", b"abc"]
    vocabulary = from_metal_tokenizer(MetalTokenizer("x", tokens, {}), FILE)
    assert vocabulary.merges == [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]


def test_ways_to_one_token_go_by_the_id_of_the_left_part() -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"cd", b"abc", b"ab", b"abcd"]
    vocabulary = from_metal_tokenizer(MetalTokenizer("x", tokens, {}), FILE)
    assert vocabulary.merges[-2:] == [("abc", "d"), ("ab", "cd")]


def test_the_merges_that_come_back_encode_as_the_original(tmp_path: Path, metal: MetalTokenizer) -> None:
    directory = write_tokenizer(tmp_path)
    text = "The weather is 12345 good, they'll say:  naïve café\n\n  def read(path): return None\t今日は"
    path = directory / "tokenizer.json"
    expected = Reference.from_file(str(path)).encode(text).ids
    vocabulary = from_metal_tokenizer(metal, FILE)
    edit(directory, "tokenizer.json", lambda document: document["model"].update(merges=vocabulary.merges))
    assert len(read_tokenizer_json(path).merges) >= N_TEXT - 256
    assert Reference.from_file(str(path)).encode(text).ids == expected


def test_dropped_tokens_are_those_after_the_16th(tokenizer: Tokenizer) -> None:
    names = list(special_tokens(N_TEXT).items())
    assert dropped_tokens(tokenizer) == dict(names[16:])
    assert "<|endofprompt|>" in dropped_tokens(tokenizer).values()


def test_a_renamed_reserved_token_has_no_uuid(tokenizer: Tokenizer) -> None:
    renamed = with_specials(tokenizer, {N_TEXT + 15: AddedToken("<|mine|>", special=True)})
    assert to_metal_tokenizer(renamed, VOCAB_SIZE).specials[N_TEXT + 15] is None


def test_a_special_token_out_of_reach_is_refused(tokenizer: Tokenizer) -> None:
    moved = {N_TEXT + 8: AddedToken("<|x|>", special=True), N_TEXT + 21: AddedToken("<|start|>", special=True)}
    message = r"tokenizer.json: the special token <\|start\|> is not where .*; expected an id from 300 to 315"
    with pytest.raises(TokenizerError, match=message):
        to_metal_tokenizer(with_specials(tokenizer, moved), VOCAB_SIZE)


def test_a_text_token_after_the_special_ones_is_refused(tokenizer: Tokenizer) -> None:
    added = replace(tokenizer, tokens=tokenizer.tokens | {N_TEXT + 21: "new"})
    with pytest.raises(TokenizerError, match=r"have a gap.*expected ids 0 to 300; found no .* id 300: '<\|startoftext"):
        to_metal_tokenizer(added, VOCAB_SIZE)


def test_too_few_rows_are_refused(tokenizer: Tokenizer) -> None:
    assert to_metal_tokenizer(tokenizer, N_TEXT + 16).n_tokens == N_TEXT + 16
    with pytest.raises(TokenizerError, match=r"fewer rows .* at least 316; found 315"):
        to_metal_tokenizer(tokenizer, N_TEXT + 15)


BYTES = [bytes([byte]) for byte in range(256)]
START = UUID(UUIDS["start"])

UNUSABLE = {
    "token twice": ([*BYTES, b"ab", b"ab"], {}, "text token is there twice; expected each token once; found id 256"),
    "byte missing": (BYTES[:-1], {}, "a byte has no text token; .*; found none for 0xff"),
    "role elsewhere": (BYTES, {256: START}, r"256 is out of order; expected <\|startoftext\|>; found <\|start\|>"),
    "role far away": (BYTES, {256 + 21: START}, r"277 is out of order; expected none of the known ones"),
}


@pytest.mark.parametrize(("tokens", "specials", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_vocabulary_that_cannot_come_back_is_refused(
    tokens: list[bytes], specials: dict[int, UUID | None], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        from_metal_tokenizer(MetalTokenizer("x", tokens, specials), FILE)


def test_an_unknown_uuid_is_ignored() -> None:
    vocabulary = from_metal_tokenizer(MetalTokenizer("x", BYTES, {256: UUID(int=5)}), FILE)
    assert vocabulary.specials == special_tokens(256)


# To the tokenizer that every target takes.


def test_with_all_rows_the_tokenizer_comes_back_but_for_its_template(
    metal: MetalTokenizer, tokenizer: Tokenizer
) -> None:
    back = metal_to_tokenizer(metal, VOCAB_SIZE, FILE)
    # More merges than were learned: any two tokens that make a third.
    assert set(back.merges) >= set(tokenizer.merges)
    assert back == replace(tokenizer, merges=back.merges, chat_template=None, chat_template_source=None)


def test_special_tokens_without_a_row_are_left_out(metal: MetalTokenizer, tokenizer: Tokenizer) -> None:
    kept = metal_to_tokenizer(metal, metal.n_tokens, FILE)
    assert list(kept.specials) == list(range(N_TEXT, N_TEXT + 16))
    assert kept.specials.items() <= tokenizer.specials.items()
    assert kept.stop_ids == tokenizer.stop_ids


def test_stop_tokens_without_a_row_are_left_out(metal: MetalTokenizer) -> None:
    assert metal_to_tokenizer(metal, N_TEXT + 14, FILE).stop_ids == (N_TEXT + 4, N_TEXT + 1)


def test_a_file_without_a_row_for_return_is_refused(metal: MetalTokenizer) -> None:
    assert metal_to_tokenizer(metal, N_TEXT + 5, FILE).eos_id == N_TEXT + 4
    message = r"^model.bin: there is no row for <\|return\|>; .* found vocab_size 304, 300 of it text tokens"
    with pytest.raises(TokenizerError, match=message):
        metal_to_tokenizer(metal, N_TEXT + 4, FILE)


def test_facts_are_those_of_the_tokenizer_without_its_merges(metal: MetalTokenizer) -> None:
    expected = metal_to_tokenizer(metal, metal.n_tokens, FILE).describe()
    assert metal_to_facts(metal) == replace(expected, n_merges=None)
