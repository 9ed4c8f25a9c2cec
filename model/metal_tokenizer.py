"""The tokenizer as a Metal file keeps it, and back: bytes of the text tokens, and what each special token does.

    id      0 … N-1    text tokens, as bytes; 199998 of them in the official files
            N … N+15   special tokens: a UUID for those that OpenAI's program knows, nothing for the others

Merges are not kept. They follow from the ids: a byte-level token may be joined from any two tokens, and the one with
the lowest id is joined first. For the official vocabulary that gives the official 446,189 merges in their order.

Source: openai/gpt-oss `gpt_oss/metal/scripts/create-local-model.py`; transformers `convert_slow_tokenizer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from ..formats.containers.metal_types import MetalTokenizer
from ..formats.errors import TokenizerError
from ..formats.json_text import excerpt
from .harmony import BOS_TOKEN, CALL_TOKEN, EOS_TOKEN, O200K_PATTERN, PAD_TOKEN, special_tokens
from .tokenizer import Tokenizer, harmony_tokenizer
from .tokenizer_files import SpecialToken, TokenizerFacts
from .tokenizer_json import byte_alphabet, normalized_pattern

N_SPECIAL = 16
"""Special tokens kept, 199998 to 200013: the embeddings of the official files end there."""

SPECIAL_UUIDS: dict[str, UUID] = {
    "<|start|>": UUID("55a77c2f-8a01-4c54-8ac2-313bfc7e208d"),
    "<|message|>": UUID("16e40431-f47f-4b22-b59b-8b278fc30a54"),
    "<|end|>": UUID("fcac2f6d-4705-4f6b-b228-642accac7238"),
    "<|return|>": UUID("f799ff69-1992-43c4-a3d8-d831f475dc75"),
    "<|constrain|>": UUID("c0bb14c7-6022-49da-ad08-792d67e8b470"),
    "<|channel|>": UUID("fd3dda11-c8ab-4033-876e-d93deb172c93"),
    "<|call|>": UUID("1220f796-e388-4de5-b487-fe2eb5fe03c0"),
    # In OpenAI's script these two are <|untrusted|> and <|refusal|>; every other tokenizer has them reserved.
    "<|reserved_200000|>": UUID("07d7da55-b346-4cff-8b37-7cefacf8a3e8"),
    "<|reserved_200013|>": UUID("e15ba702-28c4-4292-ab8f-ffa434709128"),
}
"""What OpenAI's program knows a special token by. It knows one more (<|end_untrusted|>), which no file has."""

_REQUIRED = ("<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|channel|>")


@dataclass(frozen=True)
class MetalVocabulary:
    """A Metal file's tokenizer in the terms of tokenizer.json.

    Attributes:
        tokens: text tokens in the byte-level alphabet; a token's id is its place.
        merges: pairs of tokens, the first to apply first.
        specials: all 21 Harmony tokens by id; those after the 16th have no row in the file's embeddings.
        pattern: the regular expression that splits text before merging.
    """

    tokens: list[str]
    merges: list[tuple[str, str]]
    specials: dict[int, str]
    pattern: str


def to_metal_tokenizer(tokenizer: Tokenizer, vocab_size: int, file: Path | str = "tokenizer.json") -> MetalTokenizer:
    """What the header holds of `tokenizer`; its `n_tokens` is how many rows of the embeddings are kept.

    Args:
        tokenizer: text tokens 0..N-1 without a gap, then special tokens.
        vocab_size: rows of the model's embeddings.
        file: named in errors.

    Raises:
        TokenizerError: a text token would be lost, a special token that chatting needs is not among the 16, or the
            embeddings have fewer rows than that.
    """
    n_text = len(tokenizer.tokens)
    _require_no_gap(tokenizer, n_text, file)
    byte_of = str.maketrans({character: chr(byte) for byte, character in enumerate(byte_alphabet())})
    tokens = [tokenizer.tokens[token_id].translate(byte_of).encode("latin-1") for token_id in range(n_text)]
    specials: dict[int, UUID | None] = {}
    for token_id in range(n_text, n_text + N_SPECIAL):
        added = tokenizer.specials.get(token_id)
        specials[token_id] = SPECIAL_UUIDS.get(added.content) if added else None
    for name in _REQUIRED:
        if SPECIAL_UUIDS[name] not in specials.values():
            raise TokenizerError(
                f"the special token {name} is not where a Metal file can keep it",
                file=file,
                expected=f"an id from {n_text} to {n_text + N_SPECIAL - 1}",
                remedy="Use the tokenizer of openai/gpt-oss-20b, or choose another target.",
            )
    if vocab_size < n_text + N_SPECIAL:
        raise TokenizerError(
            "the embeddings have fewer rows than a Metal file keeps",
            file=file,
            expected=f"vocab_size of at least {n_text + N_SPECIAL}",
            found=vocab_size,
            remedy="Use the tokenizer that belongs to this model.",
        )
    return MetalTokenizer(_official_spelling(tokenizer.pattern), tokens, specials)


def dropped_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """The special tokens, by id, that a Metal file of this tokenizer does not keep: officially 200014 to 200018."""
    first_lost = len(tokenizer.tokens) + N_SPECIAL
    return {token_id: added.content for token_id, added in tokenizer.specials.items() if token_id >= first_lost}


def from_metal_tokenizer(metal: MetalTokenizer, file: Path) -> MetalVocabulary:
    """The vocabulary of the file, with merges and the names of special tokens found again.

    Special tokens get their Harmony names by their distance from the first one.

    Raises:
        TokenizerError: a token is there twice, a byte has no token, or a known UUID is not where Harmony has its token.
    """
    ids = {token: token_id for token_id, token in enumerate(metal.tokens)}
    if len(ids) != len(metal.tokens):
        twice = next(token_id for token_id, token in enumerate(metal.tokens) if ids[token] != token_id)
        raise _unusable("a text token is there twice", file, "each token once", f"id {twice}")
    missing = [byte for byte in range(256) if bytes([byte]) not in ids]
    if missing:
        raise _unusable("a byte has no text token", file, "a token for each byte", f"none for {missing[0]:#04x}")
    names = special_tokens(len(metal.tokens))
    known = {role: name for name, role in SPECIAL_UUIDS.items()}
    for token_id, role in metal.specials.items():
        if role in known and known[role] != names.get(token_id):
            expected = names.get(token_id, "none of the known ones")
            raise _unusable(f"special token {token_id} is out of order", file, expected, known[role])
    character_of = str.maketrans(dict(enumerate(byte_alphabet())))
    texts = [token.decode("latin-1").translate(character_of) for token in metal.tokens]
    merges = [(texts[left], texts[right]) for left, right in _merges(ids)]
    return MetalVocabulary(texts, merges, names, metal.regex)


def metal_to_tokenizer(metal: MetalTokenizer, vocab_size: int, file: Path) -> Tokenizer:
    """The tokenizer of the file, with the roles that Harmony's special tokens have; the file has no chat template.

    Args:
        metal: as read from `file`.
        vocab_size: rows of the model's embeddings; special tokens from there on are left out.
        file: named in errors.

    Raises:
        TokenizerError: as `from_metal_tokenizer`, or <|return|>, which ends a text, has no row in the embeddings.
    """
    specials = _specials_below(metal, vocab_size)
    if EOS_TOKEN not in specials.values():
        found = f"vocab_size {vocab_size}, {len(metal.tokens)} of it text tokens"
        raise _unusable(f"there is no row for {EOS_TOKEN}", file, "room for the special tokens", found)
    vocabulary = from_metal_tokenizer(metal, file)
    return harmony_tokenizer(
        dict(enumerate(vocabulary.tokens)),
        list(map(" ".join, vocabulary.merges)),
        specials,
        pattern=vocabulary.pattern,
    )


def metal_to_facts(metal: MetalTokenizer) -> TokenizerFacts:
    """What `inspect` shows of the file's tokenizer. Merges are not counted: finding them again takes a second."""
    specials = _specials_below(metal, metal.n_tokens)
    ids = {text: token_id for token_id, text in specials.items()}
    return TokenizerFacts(
        bos=SpecialToken(ids.get(BOS_TOKEN), BOS_TOKEN),
        eos=SpecialToken(ids.get(EOS_TOKEN), EOS_TOKEN),
        pad=SpecialToken(ids.get(PAD_TOKEN), PAD_TOKEN),
        stop_ids=tuple(ids[text] for text in (EOS_TOKEN, PAD_TOKEN, CALL_TOKEN) if text in ids),
        template=None,
        warnings=(),
        n_text_tokens=len(metal.tokens),
        n_special_tokens=len(specials),
    )


def _specials_below(metal: MetalTokenizer, vocab_size: int) -> dict[int, str]:
    """The Harmony tokens after the file's text tokens that have a row among `vocab_size`."""
    return {token_id: text for token_id, text in special_tokens(len(metal.tokens)).items() if token_id < vocab_size}


def _require_no_gap(tokenizer: Tokenizer, n_text: int, file: Path | str) -> None:
    """Nothing, if the text tokens are 0..N-1."""
    gap = next((token_id for token_id in range(n_text) if token_id not in tokenizer.tokens), None)
    if gap is not None:
        raise TokenizerError(
            "the text tokens have a gap, which a Metal file cannot have",
            file=file,
            expected=f"ids 0 to {n_text - 1}",
            found=f"no text token with id {gap}: {excerpt(tokenizer.text_of(gap))}",
            remedy="Tokens that were added after the special ones cannot be kept: choose another target.",
        )


def _merges(ids: Mapping[bytes, int]) -> list[tuple[int, int]]:
    """Every way to join a token from two others, as ids: by the joined token, then by the left and right one."""
    merges: list[tuple[int, int]] = []
    for token in ids:
        ways = ((ids.get(token[:cut]), ids.get(token[cut:])) for cut in range(1, len(token)))
        merges += sorted((left, right) for left, right in ways if left is not None and right is not None)
    return merges


def _official_spelling(pattern: str | None) -> str:
    """The pattern as OpenAI's script writes it; JSON files spell line ends and slashes in two ways."""
    if pattern is None:
        return O200K_PATTERN
    return O200K_PATTERN if normalized_pattern(pattern) == O200K_PATTERN else pattern


def _unusable(problem: str, file: Path, expected: str, found: str) -> TokenizerError:
    remedy = "Give the tokenizer's directory of the model it was made of."
    return TokenizerError(problem, file=file, expected=expected, found=found, remedy=remedy)
