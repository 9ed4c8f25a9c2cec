"""tokenizer.json: its vocabulary, its merges and its added tokens, checked to be byte-level BPE.

    {"added_tokens": [{"id", "content", "special", …}],        found before the text is split
     "pre_tokenizer": Sequence of Split {"Regex"} and ByteLevel,
     "decoder": ByteLevel,
     "model": {"type": "BPE", "vocab": {token: id}, "merges": [[left, right] or "left right"]}}

Source: Hugging Face tokenizers 0.23, `Tokenizer.to_str` and `added_vocabulary.rs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from ..formats.errors import TokenizerError
from ..formats.json_text import excerpt, read_json_file
from .harmony import O200K_PATTERN

MAX_TOKENIZER_BYTES = 128 * 2**20
"""The official tokenizer.json has 27,868,174 bytes."""

COPY_AGAIN = "Copy the tokenizer's files again from where the model came from."

_MAX_DEPTH = 32
_COPY_OFFICIAL = "Copy tokenizer.json from openai/gpt-oss-20b (the file of 120b is the same)."


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before it is split; `special` ones steer and are not printed."""

    content: str
    special: bool


@dataclass(frozen=True)
class TokenizerJson:
    """The content of a tokenizer.json.

    Attributes:
        vocabulary: ids by token, of the BPE model; may hold added tokens too.
        specials: added tokens by id.
        tokens: text tokens by id, in the byte-level alphabet; no id is in `specials` too.
        merges: "left right", the first to apply first.
        pattern: the regular expression that splits text before merging; None if there is none.
        warnings: what transformers or llama.cpp will do otherwise than the file says.
        document: the whole file.
    """

    vocabulary: dict[str, int]
    specials: dict[int, AddedToken]
    tokens: dict[int, str]
    merges: list[str]
    pattern: str | None
    warnings: tuple[str, ...]
    document: Mapping[str, object]


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """The tokenizer at `path`, checked.

    Raises:
        TokenizerError: the file is missing or unreadable, is not byte-level BPE, or contradicts itself.
    """
    if not path.exists():
        raise TokenizerError("there is no tokenizer.json", file=path.parent, remedy=_COPY_OFFICIAL)
    document = read_json_file(path, max_bytes=MAX_TOKENIZER_BYTES, max_depth=_MAX_DEPTH, error=TokenizerError)
    if not isinstance(document, dict):
        raise _malformed(path, None, "a JSON object", excerpt(document))
    model = _bpe_model(document, path)
    vocabulary = _vocabulary(model, path)
    specials = _added_tokens(document, vocabulary, path)
    tokens = {token_id: token for token, token_id in vocabulary.items() if token_id not in specials}
    _require_byte_level(document, tokens, path)
    pattern = _split_pattern(document)
    return TokenizerJson(
        vocabulary=vocabulary,
        specials=specials,
        tokens=tokens,
        merges=_merges(model, vocabulary, path),
        pattern=pattern,
        warnings=(*_split_warnings(document, pattern), *_renumbered(vocabulary, specials)),
        document=document,
    )


@cache
def byte_alphabet() -> tuple[str, ...]:
    """The character that stands for each byte 0..255 in a byte-level token.

    Printable Latin-1 bytes stand for themselves; the other 68 become U+0100, U+0101, … in order.

    Source: GPT-2 encoder.py, `bytes_to_unicode`.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


def steps(node: object, parts: str) -> Iterator[Mapping[str, object]]:
    """The steps of a pre-tokenizer, decoder or post-processor; a Sequence gives those under its key `parts`."""
    if not isinstance(node, dict):
        return
    if node.get("type") != "Sequence":
        yield node
        return
    children = node.get(parts)
    for child in children if isinstance(children, list) else []:
        yield from steps(child, parts)


def _malformed(path: Path, key: str | None, expected: str, found: str) -> TokenizerError:
    return TokenizerError(
        "is not a tokenizer that can be converted",
        file=path,
        key=key,
        expected=expected,
        found=found,
        remedy=COPY_AGAIN,
    )


def _bpe_model(document: Mapping[str, object], path: Path) -> dict[str, object]:
    model = document.get("model")
    if not isinstance(model, dict):
        raise _malformed(path, "model", "an object", excerpt(model))
    if model.get("type") != "BPE":
        raise _malformed(path, "model.type", "BPE", excerpt(model.get("type")))
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _malformed(path, f"model.{key}", "none, as byte-level BPE has it", excerpt(model[key]))
    return model


def _vocabulary(model: Mapping[str, object], path: Path) -> dict[str, int]:
    """`model.vocab`: ids by token, all whole numbers from 0 up, no id twice."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise _malformed(path, "model.vocab", "an object of tokens and ids", excerpt(vocabulary))
    for token, token_id in vocabulary.items():
        if type(token_id) is not int or token_id < 0:
            raise _malformed(path, "model.vocab", "ids from 0 up", f"{excerpt(token)} with id {token_id!r}")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise _malformed(path, "model.vocab", "every id once", _first_shared_id(vocabulary))
    return vocabulary


def _first_shared_id(vocabulary: Mapping[str, int]) -> str:
    owners: dict[int, str] = {}
    for token, token_id in vocabulary.items():
        if token_id in owners:
            return f"id {token_id} for {excerpt(owners[token_id])} and {excerpt(token)}"
        owners[token_id] = token
    raise AssertionError("called without a shared id")


def _added_tokens(document: Mapping[str, object], vocabulary: Mapping[str, int], path: Path) -> dict[int, AddedToken]:
    """`added_tokens` by id; each id and each text once, also against the vocabulary."""
    entries = document.get("added_tokens", [])
    if not isinstance(entries, list):
        raise _malformed(path, "added_tokens", "a list", excerpt(entries))
    texts = {token_id: token for token, token_id in vocabulary.items()}
    ids = dict(vocabulary)
    added: dict[int, AddedToken] = {}
    for entry in entries:
        token_id, content = (entry.get("id"), entry.get("content")) if isinstance(entry, dict) else (None, None)
        if type(token_id) is not int or token_id < 0 or not isinstance(content, str) or not content:
            raise _malformed(path, "added_tokens", "objects with an id from 0 up and a content", excerpt(entry))
        if token_id in added or texts.setdefault(token_id, content) != content:
            found = f"id {token_id} for {excerpt(texts[token_id])} and {excerpt(content)}"
            raise _malformed(path, "added_tokens", "every id once", found)
        if ids.setdefault(content, token_id) != token_id:
            found = f"{excerpt(content)} with the ids {ids[content]} and {token_id}"
            raise _malformed(path, "added_tokens", "every text once", found)
        added[token_id] = AddedToken(content, special=entry.get("special") is True)
    return added


def _merges(model: Mapping[str, object], vocabulary: Mapping[str, int], path: Path) -> list[str]:
    """`model.merges` as "left right", from either spelling; both halves and their union are tokens."""
    stored = model.get("merges")
    if not isinstance(stored, list):
        raise _malformed(path, "model.merges", "a list", excerpt(stored))
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in stored]
    # Whole-list operations: the official file has 446,189 merges, and a loop would take most of the reading time.
    try:
        used = {*chain.from_iterable(pairs), *map("".join, pairs)}
        good = set(map(type, pairs)) <= {list} and set(map(len, pairs)) <= {2} and used <= vocabulary.keys()
    except TypeError:
        good = False
    if not good:
        raise _bad_merge(stored, pairs, vocabulary, path)
    return list(map(" ".join, pairs))


def _bad_merge(
    stored: Sequence[object], pairs: Sequence[object], vocabulary: Mapping[str, int], path: Path
) -> TokenizerError:
    """The error for the first merge that is not two tokens which make a third."""
    for merge, pair in zip(stored, pairs, strict=True):
        if not isinstance(pair, list) or len(pair) != 2 or any(type(token) is not str for token in pair):
            return _malformed(path, "model.merges", "two tokens in each merge", excerpt(merge))
        left, right = pair
        if not {left, right, left + right} <= vocabulary.keys():
            found = f"{excerpt(left)} and {excerpt(right)}"
            return _malformed(path, "model.merges", "tokens of model.vocab", found)
    raise AssertionError("called without a bad merge")


def _require_byte_level(document: Mapping[str, object], tokens: Mapping[int, str], path: Path) -> None:
    """Nothing, if bytes are spelled in the byte-level alphabet on the way in, in the tokens, and on the way out."""
    for key, parts in (("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")):
        kinds = [step.get("type") for step in steps(document.get(key), parts)]
        if "ByteLevel" not in kinds:
            raise _malformed(path, key, "ByteLevel", excerpt(kinds))
    foreign = set().union(*tokens.values()) - set(byte_alphabet())
    if foreign:
        token_id, token = next((key, token) for key, token in tokens.items() if not foreign.isdisjoint(token))
        raise _malformed(path, "model.vocab", "tokens in the byte-level alphabet", f"{excerpt(token)}, id {token_id}")


def _split_pattern(document: Mapping[str, object]) -> str | None:
    for step in steps(document.get("pre_tokenizer"), "pretokenizers"):
        pattern = step.get("pattern")
        if step.get("type") == "Split" and isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            return str(pattern["Regex"])
    return None


def _split_warnings(document: Mapping[str, object], pattern: str | None) -> list[str]:
    """What llama.cpp will do otherwise than this tokenizer: it splits by its own gpt-4o rules and changes no text."""
    warnings = []
    if pattern is None or normalized_pattern(pattern) != normalized_pattern(O200K_PATTERN):
        warnings.append(
            "tokenizer.json does not split text by the o200k pattern of gpt-oss; "
            "llama.cpp will split it by the gpt-4o rules, so some text will get other tokens."
        )
    if document.get("normalizer") is not None:
        warnings.append("tokenizer.json normalizes text before it is split; llama.cpp will not.")
    if any(step.get("add_prefix_space") for step in steps(document.get("pre_tokenizer"), "pretokenizers")):
        warnings.append("tokenizer.json puts a space before a text; llama.cpp will not.")
    return warnings


def normalized_pattern(pattern: str) -> str:
    """`pattern` in one spelling: line ends and slashes may be written with or without a backslash."""
    return pattern.replace("\r", r"\r").replace("\n", r"\n").replace(r"\/", "/")


def _renumbered(vocabulary: Mapping[str, int], specials: Mapping[int, AddedToken]) -> list[str]:
    """A warning if the tokenizers library gives an added token another id than the file does.

    It ignores the file's id: a token that is not in the vocabulary gets the next id after all tokens before it.
    """
    next_id = len(vocabulary)
    for token_id, added in specials.items():
        if added.content not in vocabulary and token_id != next_id:
            token = excerpt(added.content)
            return [f"tokenizer.json gives {token} the id {token_id}, but transformers will give it {next_id}."]
        next_id = max(next_id, token_id + 1)
    return []
