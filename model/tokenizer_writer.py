"""The Hugging Face files of a tokenizer, in the spelling of the official ones, whatever it was read from.

    tokenizer.json            text tokens, merges, special tokens, the split pattern
    tokenizer_config.json     the special tokens by id; which one begins, ends and pads
    special_tokens_map.json   the same roles by text
    generation_config.json    the ids that begin, pad, and end generation
    chat_template.jinja       if there is a template

Of the official tokenizer they are byte for byte the published files. What a `Tokenizer` does not hold is as it is
there: no normalizer, special tokens that take no space beside them, a whole token before any merge.

Source: openai/gpt-oss-20b, the files; Hugging Face tokenizers 0.23, `Tokenizer.to_str` and `added_vocabulary.rs`;
transformers 4.55, `convert_slow_tokenizer.py` (TikTokenConverter).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .harmony import CALL_TOKEN, EOS_TOKEN, O200K_PATTERN, PAD_TOKEN, special_tokens
from .hf_files import TRANSFORMERS_VERSION, official_json
from .tokenizer import Tokenizer, harmony_tokenizer
from .tokenizer_json import AddedToken

# `int(1e30)`: transformers' way to say that a tokenizer has no length limit.
_NO_LENGTH_LIMIT = 1_000_000_000_000_000_019_884_624_838_656

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files by name, in alphabetical order."""
    files = small_tokenizer_files(tokenizer) | {"tokenizer.json": tokenizer_json(tokenizer)}
    if tokenizer.chat_template is not None:
        files["chat_template.jinja"] = tokenizer.chat_template.encode()
    return dict(sorted(files.items()))


def small_tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """generation_config.json, special_tokens_map.json and tokenizer_config.json: all that needs no vocabulary."""
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    present = {role: token_id for role, token_id in ids.items() if token_id is not None}
    roles = {f"{role}_token": tokenizer.text_of(token_id) for role, token_id in present.items()}
    generation = {f"{role}_token_id": token_id for role, token_id in present.items()} | {
        "do_sample": True,
        "eos_token_id": _stop_ids(tokenizer),
        "transformers_version": TRANSFORMERS_VERSION,
    }
    config = roles | {
        # Integer keys, so that sorting is by id and not by the id's digits.
        "added_tokens_decoder": {token_id: _added_token(added) for token_id, added in tokenizer.specials.items()},
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {},
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _NO_LENGTH_LIMIT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {
        "generation_config.json": official_json(generation),
        "special_tokens_map.json": official_json(roles),
        "tokenizer_config.json": official_json(config),
    }


def official_small_files() -> dict[str, bytes]:
    """`small_tokenizer_files` of the official tokenizer: the published bytes, which need no vocabulary."""
    return small_tokenizer_files(harmony_tokenizer({}, [], special_tokens()))


def tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """The bytes of tokenizer.json: byte-level BPE behind the split, special tokens found before it.

    The o200k pattern stands for a missing one, as in GGUF and Metal files.
    """
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern or O200K_PATTERN}}
    to_bytes = _BYTE_LEVEL | {"add_prefix_space": False, "use_regex": False}
    document: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token_entry(*item) for item in sorted(tokenizer.specials.items())],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split | {"behavior": "Isolated", "invert": False}, to_bytes],
        },
        "post_processor": _post_processor(tokenizer),
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {},
            "merges": [],
        },
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # The two long members are spelled apart: with an indent `json` takes seconds for them. Within a string every
    # quote has a backslash, so each of the keys stands where it should and nowhere else.
    for key, empty, spelled in (
        ("vocab", "{}", _spelled_vocabulary(_vocabulary(tokenizer))),
        ("merges", "[]", _spelled_merges(tokenizer.merges)),
    ):
        text = text.replace(f'"{key}": {empty}', f'"{key}": {spelled}', 1)
    return text.encode()


def _stop_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that end generation; where none are known, that of the end and those of Harmony's three stop tokens."""
    if tokenizer.stop_ids:
        return list(tokenizer.stop_ids)
    ids = {added.content: token_id for token_id, added in tokenizer.specials.items()}
    harmony = (ids[text] for text in (EOS_TOKEN, PAD_TOKEN, CALL_TOKEN) if text in ids)
    return list(dict.fromkeys((tokenizer.eos_id, *harmony)))


def _added_token(added: AddedToken) -> dict[str, object]:
    return {
        "content": added.content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": added.special,
    }


def _added_token_entry(token_id: int, added: AddedToken) -> dict[str, object]:
    """An entry of tokenizer.json, its keys in the order the tokenizers library writes them."""
    entry = {"id": token_id} | _added_token(added)
    return {key: entry[key] for key in ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")}


def _post_processor(tokenizer: Tokenizer) -> dict[str, object]:
    """The official step; behind it one that puts the first and the last token around a text, if they are added."""
    trim = _BYTE_LEVEL | {"trim_offsets": False}
    ends = ((tokenizer.add_bos, tokenizer.bos_id), (tokenizer.add_eos, tokenizer.eos_id))
    first, last = (
        {str(tokenizer.text_of(token_id)): token_id} if added and token_id is not None else {}
        for added, token_id in ends
    )
    if not first and not last:
        return trim

    def around(sequence: str, type_id: int) -> list[object]:
        before, after = ([{"SpecialToken": {"id": text, "type_id": type_id}} for text in end] for end in (first, last))
        return [*before, {"Sequence": {"id": sequence, "type_id": type_id}}, *after]

    template = {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            text: {"id": text, "ids": [token_id], "tokens": [text]} for text, token_id in sorted((first | last).items())
        },
    }
    return {"type": "Sequence", "processors": [trim, template]}


def _vocabulary(tokenizer: Tokenizer) -> Mapping[str, int]:
    """`model.vocab` in the order of ids: the text tokens, and the special ones only where they are needed there.

    The tokenizers library ignores the id of an added token that is not in the vocabulary: it numbers such tokens from
    the vocabulary's size on. A merge may only name tokens of the vocabulary.
    """
    tokens = dict(sorted(tokenizer.tokens.items()))
    specials = {token_id: added.content for token_id, added in sorted(tokenizer.specials.items())}
    numbered_alike = list(specials) == list(range(len(tokens), len(tokens) + len(specials)))
    if not numbered_alike or _in_merges(tokenizer, set(specials.values())):
        tokens = dict(sorted((tokens | specials).items()))
    return {text: token_id for token_id, text in tokens.items()}


def _in_merges(tokenizer: Tokenizer, texts: set[str]) -> bool:
    """Whether a merge makes or takes one of `texts`."""
    halves = " ".join(tokenizer.merges).split(" ")
    return not texts.isdisjoint(halves) or not texts.isdisjoint(merge.replace(" ", "") for merge in tokenizer.merges)


def _spelled_vocabulary(vocabulary: Mapping[str, int]) -> str:
    """The object as `json` would write it here with an indent of 2."""
    if not vocabulary:
        return "{}"
    members = json.dumps(vocabulary, ensure_ascii=False, separators=(",\n      ", ": "))
    return f"{{\n      {members[1:-1]}\n    }}"


def _spelled_merges(merges: Sequence[str]) -> str:
    """The array of pairs as `json` would write it here with an indent of 2."""
    if not merges:
        return "[]"
    # No token holds a space, and no JSON string a line end.
    pairs = json.dumps(merges, ensure_ascii=False, separators=("\n", ""))[1:-1]
    pairs = pairs.replace(" ", '",\n        "').replace('"\n"', '"\n      ],\n      [\n        "')
    return f"[\n      [\n        {pairs}\n      ]\n    ]"
