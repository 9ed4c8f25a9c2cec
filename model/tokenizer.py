"""The tokenizer beside a checkpoint, read without the `tokenizers` library and checked for what GGUF can hold.

    tokenizer.json                        text tokens, merges, special tokens, the split pattern
    tokenizer_config.json                 which token begins, ends and pads; sometimes the chat template
    chat_template.jinja                   the chat template
    config.json, generation_config.json   ids of the tokens that begin, end and pad

Source: llama.cpp `conversion/base.py` (get_vocab_base), `gguf-py/gguf/vocab.py` (SpecialVocab).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..formats.errors import TokenizerError
from ..formats.json_text import excerpt
from .harmony import BOS_TOKEN, CALL_TOKEN, EOS_TOKEN, O200K_PATTERN, PAD_TOKEN
from .tokenizer_files import ROLES, SmallFiles, SpecialToken, TokenizerFacts, read_small_files, template_facts
from .tokenizer_json import COPY_AGAIN, AddedToken, read_tokenizer_json, steps


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer.

    Attributes:
        tokens: text tokens by id, in the byte-level alphabet.
        specials: added tokens by id; no id is in `tokens` too.
        merges: "left right", the first to apply first.
        pattern: the regular expression that splits text before merging; None if there is none.
        bos_id, eos_id, pad_id: ids in `tokens` or `specials`.
        stop_ids: ids that end generation.
        add_bos, add_eos: whether encoding puts that token around a text.
        chat_template: the Jinja text as it is stored.
        chat_template_source: the name of the file it came from.
        warnings: sentences for the user; nothing in them stops a conversion.
    """

    tokens: dict[int, str]
    specials: dict[int, AddedToken]
    merges: list[str]
    pattern: str | None
    bos_id: int | None
    eos_id: int
    pad_id: int | None
    stop_ids: tuple[int, ...]
    add_bos: bool
    add_eos: bool
    chat_template: str | None
    chat_template_source: str | None
    warnings: tuple[str, ...]

    def text_of(self, token_id: int) -> str | None:
        """The token's text, in the byte-level alphabet if it is a text token; None if the id has no token."""
        added = self.specials.get(token_id)
        return added.content if added else self.tokens.get(token_id)

    def describe(self) -> TokenizerFacts:
        """What `inspect` shows: counts, the tokens with a role, the template's origin and digest."""

        def token(token_id: int | None) -> SpecialToken:
            return SpecialToken(token_id, None if token_id is None else self.text_of(token_id))

        return TokenizerFacts(
            bos=token(self.bos_id),
            eos=token(self.eos_id),
            pad=token(self.pad_id),
            stop_ids=self.stop_ids,
            template=template_facts(self.chat_template, self.chat_template_source),
            warnings=self.warnings,
            n_text_tokens=len(self.tokens),
            n_special_tokens=len(self.specials),
            n_merges=len(self.merges),
        )

    def require_fit(self, vocab_size: int, file: Path | str = "tokenizer.json") -> None:
        """Nothing, if every id is below `vocab_size`.

        Raises:
            TokenizerError: a token has no row in the embedding.
        """
        largest = max((*self.tokens, *self.specials))
        if largest >= vocab_size:
            raise TokenizerError(
                "the tokenizer is larger than the vocabulary",
                file=file,
                expected=f"ids below vocab_size {vocab_size}",
                found=f"id {largest}, {excerpt(self.text_of(largest))}",
                remedy="Use the tokenizer that belongs to this model, or correct vocab_size in config.json.",
            )


def harmony_tokenizer(
    tokens: dict[int, str],
    merges: list[str],
    specials: Mapping[int, str],
    *,
    pattern: str = O200K_PATTERN,
    chat_template: str | None = None,
) -> Tokenizer:
    """The tokenizer in which Harmony's special tokens have their roles, as in openai/gpt-oss-20b.

    Args:
        tokens: text tokens by id, in the byte-level alphabet.
        merges: "left right", the first to apply first.
        specials: special tokens by id; <|return|> must be one of them, any other may be missing.
        pattern: the regular expression that splits text before merging.
        chat_template: the Jinja text.
    """
    ids = {text: token_id for token_id, text in specials.items()}
    return Tokenizer(
        tokens=tokens,
        specials={token_id: AddedToken(text, special=True) for token_id, text in specials.items()},
        merges=merges,
        pattern=pattern,
        bos_id=ids.get(BOS_TOKEN),
        eos_id=ids[EOS_TOKEN],
        pad_id=ids.get(PAD_TOKEN),
        stop_ids=tuple(ids[text] for text in (EOS_TOKEN, PAD_TOKEN, CALL_TOKEN) if text in ids),
        add_bos=False,
        add_eos=False,
        chat_template=chat_template,
        chat_template_source=None,
        warnings=(),
    )


def read_tokenizer(directory: Path, *, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer in `directory`, checked.

    Args:
        directory: holds tokenizer.json; the other files are read if they are there.
        vocab_size: the model's; every id must be below it. None: not checked.

    Raises:
        TokenizerError: a file is missing or unreadable, is not byte-level BPE, or the files contradict each other.
    """
    path = directory / "tokenizer.json"
    main = read_tokenizer_json(path)
    small = read_small_files(directory)
    ids_by_text = main.vocabulary | {added.content: token_id for token_id, added in main.specials.items()}
    ids, id_warnings = _role_ids(small, ids_by_text, directory)
    if ids["eos"] is None:
        raise TokenizerError(
            "nothing says which token ends a text",
            file=directory,
            key="eos_token",
            expected="eos_token in tokenizer_config.json, or eos_token_id in config.json",
            remedy=COPY_AGAIN,
        )
    tokenizer = Tokenizer(
        tokens=main.tokens,
        specials=main.specials,
        merges=main.merges,
        pattern=main.pattern,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        stop_ids=small.stop_ids,
        add_bos=_is_added(main.document, small, "bos", 0),
        add_eos=_is_added(main.document, small, "eos", -1),
        chat_template=small.chat_template,
        chat_template_source=small.chat_template_source,
        warnings=(*main.warnings, *id_warnings, *small.warnings),
    )
    if vocab_size is not None:
        tokenizer.require_fit(vocab_size, path)
    return tokenizer


def _role_ids(
    small: SmallFiles, ids_by_text: Mapping[str, int], directory: Path
) -> tuple[dict[str, int | None], list[str]]:
    """The id for each role, and a warning for each file that states another."""
    known = set(ids_by_text.values())
    ids: dict[str, int | None] = {}
    warnings = []
    for role in ROLES:
        text, stated = small.special_text(role), small.declared_ids(role)
        if text is not None:
            ids[role] = _id_of(text, ids_by_text, directory / "tokenizer_config.json", f"{role}_token")
        else:
            file, choices = next(iter(stated.items()), ("", (None,)))
            ids[role] = choices[0]
            if ids[role] is not None and ids[role] not in known:
                raise _unknown(directory / file, f"{role}_token_id", ids[role])
        for file, choices in stated.items():
            if ids[role] not in choices:
                warnings.append(f"{file} says {role}_token_id {choices[0]}; {ids[role]} is used.")
    return ids, warnings


def _id_of(text: str, ids_by_text: Mapping[str, int], file: Path, key: str) -> int:
    if text not in ids_by_text:
        raise _unknown(file, key, excerpt(text))
    return ids_by_text[text]


def _unknown(file: Path, key: str, found: object) -> TokenizerError:
    expected = "a token of tokenizer.json"
    return TokenizerError("is not a known token", file=file, key=key, expected=expected, found=found, remedy=COPY_AGAIN)


def _is_added(document: Mapping[str, object], small: SmallFiles, role: str, place: int) -> bool:
    """Whether encoding adds the role's token at `place` (0 first, -1 last) of a text.

    tokenizer_config.json may say so; else a TemplateProcessing step that has the token there.
    """
    stated = small.tokenizer_config.get(f"add_{role}_token")
    if isinstance(stated, bool):
        return stated
    for step in steps(document.get("post_processor"), "processors"):
        single = step.get("single")
        if step.get("type") == "TemplateProcessing" and isinstance(single, list) and len(single) > 1:
            part = single[place]
            special = part.get("SpecialToken") if isinstance(part, dict) else None
            if isinstance(special, dict):
                return special.get("id") == small.special_text(role)
    return False
