"""The tokenizer as GGUF metadata, as llama.cpp's converter writes it.

    tokenizer.ggml.model                  "gpt2": byte-level BPE
    tokenizer.ggml.pre                    "gpt-4o": llama.cpp's name for the o200k split
    tokenizer.ggml.tokens, .token_type    one entry for each row of the embedding; [PAD{id}] where an id has no token
    tokenizer.ggml.merges                 "left right"
    tokenizer.ggml.{bos,eos,padding}_token_id, .add_{bos,eos}_token
    tokenizer.chat_template               the text as it is stored

Source: llama.cpp `conversion/base.py` (get_vocab_base, _set_vocab_gpt2), `gguf-py/gguf/vocab.py` (SpecialVocab).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.containers.gguf_types import ValueType
from ..formats.containers.gguf_values import GgufValue
from ..formats.containers.gguf_writer import boolean, i32s, string, strings, u32
from .tokenizer import Tokenizer
from .tokenizer_files import SpecialToken, TokenizerFacts, template_facts
from .tokenizer_json import AddedToken

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
ADD_BOS = "tokenizer.ggml.add_bos_token"
ADD_EOS = "tokenizer.ggml.add_eos_token"
CHAT_TEMPLATE = "tokenizer.chat_template"


class TokenType(IntEnum):
    """What a token is to llama.cpp. Source: gguf-py `constants.py`, TokenType."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


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


def kv_to_facts(kv: Mapping[str, GgufValue]) -> TokenizerFacts:
    """What `inspect` shows of a GGUF's tokenizer; a key that is missing or of another type is left out.

    The counts are by token type; `stop_ids` is empty, since llama.cpp finds these tokens by their text.
    """
    tokens: Sequence[str] = _stored(kv, TOKENS, ValueType.ARRAY, ValueType.STRING) or ()
    stored_types = _stored(kv, TOKEN_TYPE, ValueType.ARRAY, ValueType.I32)
    types = np.asarray([] if stored_types is None else stored_types, np.int32)
    merges: Sequence[str] = _stored(kv, MERGES, ValueType.ARRAY, ValueType.STRING) or ()

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
        n_special_tokens=int(np.count_nonzero((types == TokenType.CONTROL) | (types == TokenType.USER_DEFINED))),
        n_merges=len(merges),
    )


def _stored(kv: Mapping[str, GgufValue], key: str, value_type: ValueType, element_type: ValueType | None = None) -> Any:
    """The key's value if it is there and has that type, else None."""
    found = kv.get(key)
    if found is None or (found.type, found.element_type) != (value_type, element_type):
        return None
    return found.value
