"""The tokenizer as GGUF metadata, as llama.cpp's converter writes it, and back from what any writer left.

    tokenizer.ggml.model                  "gpt2": byte-level BPE
    tokenizer.ggml.pre                    "gpt-4o": llama.cpp's name for the o200k split
    tokenizer.ggml.tokens, .token_type    one entry for each row of the embedding; [PAD{id}] where an id has no token
    tokenizer.ggml.merges                 "left right"
    tokenizer.ggml.{bos,eos,padding}_token_id, .add_{bos,eos}_token
    tokenizer.chat_template               the text as it is stored

Ollama's converter fills up with [PAD0], [PAD1], … that count as user-defined, says "default" for the split, ends with
<|endoftext|>, and lists all stop tokens in tokenizer.ggml.eos_token_ids; tokenizer.ggml.scores means nothing in BPE.

Source: llama.cpp `conversion/base.py` (get_vocab_base, _set_vocab_gpt2), `gguf-py/gguf/vocab.py` (SpecialVocab);
Ollama `convert/{convert,convert_gptoss,tokenizer}.go`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.containers.gguf_types import ValueType
from ..formats.containers.gguf_values import GgufValue
from ..formats.containers.gguf_writer import boolean, f32s, i32s, string, strings, u32
from ..formats.errors import TokenizerError
from ..formats.json_text import excerpt
from .harmony import CALL_TOKEN, EOS_TOKEN, O200K_PATTERN, PAD_TOKEN
from .tokenizer import Tokenizer
from .tokenizer_files import SpecialToken, TokenizerFacts, template_facts
from .tokenizer_json import AddedToken, byte_alphabet

PREFIX = "tokenizer."

MODEL = "tokenizer.ggml.model"
PRE = "tokenizer.ggml.pre"
TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPE = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"
ROLE_IDS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}
SCORES = "tokenizer.ggml.scores"
EOS_IDS = "tokenizer.ggml.eos_token_ids"
ADD_BOS = "tokenizer.ggml.add_bos_token"
ADD_EOS = "tokenizer.ggml.add_eos_token"
ADD_PAD = "tokenizer.ggml.add_padding_token"
CHAT_TEMPLATE = "tokenizer.chat_template"


class TokenType(IntEnum):
    """What a token is to llama.cpp. Source: gguf-py `constants.py`, TokenType."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


_FILLER = re.compile(r"\[PAD\d+\]")

# Splits that are o200k in a gpt-oss file; Ollama says "default" and knows better.
_O200K_SPLITS = (None, "gpt-4o", "default")


def tokenizer_to_kv(tokenizer: Tokenizer, vocab_size: int) -> dict[str, GgufValue]:
    """The `tokenizer.*` keys for `tokenizer`, in the converter's order; `vocab_size` tokens and token types.

    Raises:
        TokenizerError: an id is not below `vocab_size`.
    """
    tokenizer.require_fit(vocab_size)
    tokens, token_types = _tokens_by_id(tokenizer, vocab_size)
    kv = {
        MODEL: string("gpt2"),
        PRE: string("gpt-4o"),
        TOKENS: strings(tokens),
        TOKEN_TYPE: i32s(token_types),
        MERGES: strings(tokenizer.merges),
    }
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    kv |= {ROLE_IDS[role]: u32(token_id) for role, token_id in ids.items() if token_id is not None}
    kv |= {ADD_BOS: boolean(tokenizer.add_bos), ADD_EOS: boolean(tokenizer.add_eos)}
    if tokenizer.chat_template is not None:
        kv[CHAT_TEMPLATE] = string(tokenizer.chat_template)
    return kv


def tokenizer_to_ollama_kv(tokenizer: Tokenizer, vocab_size: int) -> dict[str, GgufValue]:
    """The `tokenizer.*` keys as Ollama's legacy converter writes them, sorted; `vocab_size` tokens, types and scores.

    Raises:
        TokenizerError: an id is not below `vocab_size`.
    """
    kv = tokenizer_to_kv(tokenizer, vocab_size)
    tokens, types = _tokens_by_id(tokenizer, vocab_size)
    scores = np.arange(vocab_size, dtype=np.float32)
    fillers = np.flatnonzero(types == TokenType.UNUSED)
    for place, token_id in enumerate(fillers.tolist()):
        tokens[token_id] = f"[PAD{place}]"
    types[fillers], scores[fillers] = TokenType.USER_DEFINED, -1
    kv |= {PRE: string("default"), TOKENS: strings(tokens), TOKEN_TYPE: i32s(types), SCORES: f32s(scores)}
    eos_id, stop_ids = _ollama_ends(tokenizer)
    kv |= {ROLE_IDS["eos"]: u32(eos_id), EOS_IDS: i32s(stop_ids)}
    if tokenizer.pad_id is not None:
        kv[ADD_PAD] = boolean(False)
    return dict(sorted(kv.items()))


def _ollama_ends(tokenizer: Tokenizer) -> tuple[int, list[int]]:
    """What Ollama calls the token that ends a text, and all that end generation, in rising order."""
    specials = {added.content: token_id for token_id, added in tokenizer.specials.items()}
    stops = {tokenizer.eos_id, *tokenizer.stop_ids}
    if specials.get(EOS_TOKEN) != tokenizer.eos_id:
        return tokenizer.eos_id, sorted(stops)
    stops |= {specials[text] for text in (PAD_TOKEN, CALL_TOKEN) if text in specials}
    return specials.get(PAD_TOKEN, tokenizer.eos_id), sorted(stops)


def _tokens_by_id(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], NDArray[np.int32]]:
    """Every id's token, and its type (int32 [vocab_size])."""
    tokens = [tokenizer.tokens.get(token_id, f"[PAD{token_id}]") for token_id in range(vocab_size)]
    types = np.full(vocab_size, TokenType.UNUSED, np.int32)
    types[list(tokenizer.tokens)] = TokenType.NORMAL
    for token_id, added in tokenizer.specials.items():
        tokens[token_id] = added.content
        types[token_id] = _type_of(added)
    return tokens, types


def _type_of(added: AddedToken) -> TokenType:
    """Control for a special token and for any that is spelled <|like one|>, as the converter decides."""
    looks_special = added.content.startswith("<|") and added.content.endswith("|>")
    return TokenType.CONTROL if added.special or looks_special else TokenType.USER_DEFINED


def kv_to_tokenizer(kv: Mapping[str, GgufValue], file: Path | str) -> Tokenizer:
    """The tokenizer that a GGUF's keys say: the inverse of `tokenizer_to_kv`, for any writer's keys.

    What GGUF has no key for: the split pattern (the o200k pattern is assumed), the stop ids (but for Ollama's
    `eos_token_ids`), and whether a token that is spelled <|like one|> is special (it is then). Ollama says that
    <|endoftext|> ends a text; if <|return|> is among its stop tokens, that one does.

    Raises:
        TokenizerError: a key is missing, of another type, or contradicts another; or it is not byte-level BPE.
    """
    keys = _Keys(kv, file)
    model = keys.require(MODEL, _TEXT)
    if model != "gpt2":
        raise keys.refusal(MODEL, "is not byte-level BPE", "'gpt2'", excerpt(model))
    tokens, specials = _tokens_by_type(keys)
    texts = tokens | {token_id: added.content for token_id, added in specials.items()}
    if len(set(texts.values())) != len(texts):
        raise keys.refusal(TOKENS, "a token is there twice", "each token once", _first_twice(texts))
    eos_id, stop_ids = _ends(keys, texts)
    return Tokenizer(
        tokens=tokens,
        specials=specials,
        merges=_merges(keys, set(texts.values())),
        pattern=O200K_PATTERN,
        bos_id=_role_id(keys, "bos", texts),
        eos_id=eos_id,
        pad_id=_role_id(keys, "pad", texts),
        stop_ids=stop_ids,
        add_bos=keys.get(ADD_BOS, _FLAG) or False,
        add_eos=keys.get(ADD_EOS, _FLAG) or False,
        chat_template=keys.get(CHAT_TEMPLATE, _TEXT),
        chat_template_source=CHAT_TEMPLATE if CHAT_TEMPLATE in kv else None,
        warnings=_split_warnings(keys.get(PRE, _TEXT)),
    )


@dataclass(frozen=True)
class _Kind:
    """A type that a key may be asked for; several of GGUF's types may do."""

    name: str
    types: frozenset[ValueType]
    is_array: bool = False


_INTEGERS = frozenset(ValueType) - {ValueType.F32, ValueType.F64, ValueType.BOOL, ValueType.STRING, ValueType.ARRAY}
_TEXT = _Kind("a string", frozenset({ValueType.STRING}))
_FLAG = _Kind("true or false", frozenset({ValueType.BOOL}))
_ID = _Kind("a whole number", _INTEGERS)
_TEXTS = _Kind("an array of strings", _TEXT.types, is_array=True)
_IDS = _Kind("an array of whole numbers", _INTEGERS, is_array=True)


@dataclass(frozen=True)
class _Keys:
    """One file's keys, each taken with the kind it must have."""

    kv: Mapping[str, GgufValue]
    file: Path | str

    def refusal(self, key: str, problem: str, expected: str, found: str) -> TokenizerError:
        remedy = "Give the directory of the model's tokenizer with --tokenizer, or convert the file again."
        return TokenizerError(problem, file=self.file, key=key, expected=expected, found=found, remedy=remedy)

    def get(self, key: str, kind: _Kind) -> Any:
        """The key's value, None if it is missing."""
        stored = self.kv.get(key)
        if stored is None:
            return None
        element = stored.element_type if kind.is_array else stored.type
        if element not in kind.types or (stored.type is ValueType.ARRAY) != kind.is_array:
            names = [part.name.lower() for part in (stored.type, stored.element_type) if part is not None]
            raise self.refusal(key, "the key has another type", kind.name, " of ".join(names))
        return stored.value

    def require(self, key: str, kind: _Kind) -> Any:
        value = self.get(key, kind)
        if value is None:
            raise self.refusal(key, "the key is missing", kind.name, "nothing")
        return value


def _tokens_by_type(keys: _Keys) -> tuple[dict[int, str], dict[int, AddedToken]]:
    """Text tokens and special tokens by id; fillers are left out."""
    texts = list(keys.require(TOKENS, _TEXTS))
    types = np.asarray(keys.require(TOKEN_TYPE, _IDS))
    if len(types) != len(texts):
        raise keys.refusal(TOKEN_TYPE, "there is not one type for each token", f"{len(texts):,}", f"{len(types):,}")
    unknown = np.flatnonzero(~np.isin(types, list(TokenType)))
    if unknown.size:
        expected = ", ".join(f"{kind.value} ({kind.name.lower()})" for kind in TokenType)
        found = f"{types[unknown[0]]} for id {unknown[0]}, {excerpt(texts[unknown[0]])}"
        raise keys.refusal(TOKEN_TYPE, "unknown type of token", expected, found)
    tokens = {token_id: texts[token_id] for token_id in np.flatnonzero(types == TokenType.NORMAL).tolist()}
    _require_byte_level(keys, tokens)
    specials = {}
    for kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
        for token_id in np.flatnonzero(types == kind).tolist():
            if kind is TokenType.USER_DEFINED and _FILLER.fullmatch(texts[token_id]):
                continue
            if not texts[token_id]:
                raise keys.refusal(TOKENS, "a special token has no text", "at least one character", f"id {token_id}")
            specials[token_id] = AddedToken(texts[token_id], special=kind is TokenType.CONTROL)
    return tokens, specials


def _require_byte_level(keys: _Keys, tokens: Mapping[int, str]) -> None:
    """Nothing, if there are text tokens, all of them in the byte-level alphabet."""
    if not tokens:
        raise keys.refusal(TOKEN_TYPE, "there are no text tokens", f"tokens of type {TokenType.NORMAL.value}", "none")
    foreign = set().union(*tokens.values()) - set(byte_alphabet())
    if foreign:
        token_id, token = next((key, token) for key, token in tokens.items() if not foreign.isdisjoint(token))
        found = f"{excerpt(token)}, id {token_id}"
        raise keys.refusal(TOKENS, "is not byte-level BPE", "tokens in the byte-level alphabet", found)


def _first_twice(texts: Mapping[int, str]) -> str:
    owners: dict[str, int] = {}
    for token_id, text in texts.items():
        if owners.setdefault(text, token_id) != token_id:
            return f"{excerpt(text)} with the ids {owners[text]} and {token_id}"
    raise AssertionError("called without a token that is there twice")


def _merges(keys: _Keys, known: set[str]) -> list[str]:
    """The merges; both halves and their union are tokens."""
    merges: list[str] = list(keys.require(MERGES, _TEXTS))
    # Sets of strings, no list for each of the official 446,189 merges: a third of the time.
    halves, unions = set(" ".join(merges).split(" ")), {merge.replace(" ", "") for merge in merges}
    if not merges or ({merge.count(" ") for merge in merges} == {1} and halves | unions <= known):
        return merges
    bad = next(merge for merge in merges if merge.count(" ") != 1 or not _parts(merge) <= known)
    raise keys.refusal(MERGES, "is not a merge of two tokens into a third", f"tokens of {TOKENS}", excerpt(bad))


def _parts(merge: str) -> set[str]:
    return {*merge.split(" "), merge.replace(" ", "")}


def _role_id(keys: _Keys, role: str, known: Container[int]) -> int | None:
    token_id = keys.get(ROLE_IDS[role], _ID)
    return None if token_id is None else _known_id(keys, ROLE_IDS[role], token_id, known)


def _known_id(keys: _Keys, key: str, token_id: int, known: Container[int]) -> int:
    if token_id not in known:
        raise keys.refusal(key, "is not the id of a token", f"an id of {TOKENS}", str(token_id))
    return int(token_id)


def _ends(keys: _Keys, texts: Mapping[int, str]) -> tuple[int, tuple[int, ...]]:
    """The token that ends a text, and all that end generation: that one first, the others by id."""
    stored = keys.get(EOS_IDS, _IDS)
    stops = sorted({_known_id(keys, EOS_IDS, token_id, texts) for token_id in ([] if stored is None else stored)})
    eos_id = next((token_id for token_id in stops if texts[token_id] == EOS_TOKEN), None)
    if eos_id is None:
        eos_id = _known_id(keys, ROLE_IDS["eos"], keys.require(ROLE_IDS["eos"], _ID), texts)
    return eos_id, tuple(sorted(stops, key=lambda token_id: token_id != eos_id))


def _split_warnings(split: str | None) -> tuple[str, ...]:
    if split in _O200K_SPLITS:
        return ()
    return (
        f"The file says that text is split as by {excerpt(split)}; gpt-oss splits it by the o200k pattern, "
        "which is used.",
    )


def kv_to_facts(kv: Mapping[str, GgufValue]) -> TokenizerFacts:
    """What `inspect` shows of a GGUF's tokenizer; a key that is missing or of another type is left out.

    The counts are by token type; `stop_ids` is empty, since llama.cpp finds these tokens by their text.
    """
    tokens: Sequence[str] = _stored(kv, TOKENS, ValueType.ARRAY, ValueType.STRING) or ()
    stored_types = _stored(kv, TOKEN_TYPE, ValueType.ARRAY, ValueType.I32)
    types = np.asarray([] if stored_types is None else stored_types, np.int32)[: len(tokens)]
    merges: Sequence[str] = _stored(kv, MERGES, ValueType.ARRAY, ValueType.STRING) or ()

    # Ollama's fillers are of the same type as tokens that were added.
    added = sum(
        not tokens[place].startswith("[PAD") for place in np.flatnonzero(types == TokenType.USER_DEFINED).tolist()
    )

    def token(role: str) -> SpecialToken:
        token_id = _stored(kv, ROLE_IDS[role], ValueType.U32)
        known = token_id is not None and token_id < len(tokens)
        return SpecialToken(token_id, tokens[token_id] if known else None)

    return TokenizerFacts(
        bos=token("bos"),
        eos=token("eos"),
        pad=token("pad"),
        stop_ids=(),
        template=template_facts(_stored(kv, CHAT_TEMPLATE, ValueType.STRING), CHAT_TEMPLATE),
        warnings=(),
        n_text_tokens=int(np.count_nonzero(types == TokenType.NORMAL)),
        n_special_tokens=int(np.count_nonzero(types == TokenType.CONTROL)) + added,
        n_merges=len(merges),
    )


def config_ids(kv: Mapping[str, GgufValue]) -> dict[str, int]:
    """What config.json says of the tokenizer, "eos_token_id" and "pad_token_id", as far as the keys say it."""
    tokens: Sequence[str] = _stored(kv, TOKENS, ValueType.ARRAY, ValueType.STRING) or ()
    stops = _stored(kv, EOS_IDS, ValueType.ARRAY, ValueType.I32)
    ends = [int(token_id) for token_id in ([] if stops is None else stops) if 0 <= token_id < len(tokens)]
    eos_id, pad_id = (_stored(kv, ROLE_IDS[role], ValueType.U32) for role in ("eos", "pad"))
    eos_id = next((token_id for token_id in ends if tokens[token_id] == EOS_TOKEN), eos_id)
    found = {"eos_token_id": eos_id, "pad_token_id": pad_id}
    return {key: token_id for key, token_id in found.items() if token_id is not None}


def _stored(kv: Mapping[str, GgufValue], key: str, value_type: ValueType, element_type: ValueType | None = None) -> Any:
    """The key's value if it is there and has that type, else None."""
    found = kv.get(key)
    if found is None or (found.type, found.element_type) != (value_type, element_type):
        return None
    return found.value
