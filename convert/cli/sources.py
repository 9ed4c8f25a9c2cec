"""SRC and its like: paths, or repositories of the Hub that are brought here first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, overload

import typer

from .output import print_lines, progress_bar

if TYPE_CHECKING:
    from ..hub.need import Need
    from ..hub.source import Opened


def is_remote(text: str) -> bool:
    """Whether `text` names a repository of the Hub. Asks nobody."""
    from ..hub.ids import HubId, parse_source

    return isinstance(parse_source(text), HubId)


@overload
def path_of(text: str, *, tokenizer: bool = False, silent: bool) -> Path: ...
@overload
def path_of(text: str | None, *, tokenizer: bool = False, silent: bool) -> Path | None: ...
def path_of(text: str | None, *, tokenizer: bool = False, silent: bool) -> Path | None:
    """Where the source is that `text` names, downloaded if it is on the Hub; what that took is said on stderr."""
    from ..hub.need import Need
    from ..hub.source import brought

    if text is None:
        return None
    with _interruptible():
        source = brought(text, progress_bar(silent), Need.TOKENIZER if tokenizer else Need.WEIGHTS)
    if not silent:
        print_lines([f"note: {note}" for note in source.notes], to_stderr=True)
    return source.path


@contextmanager
def opened_source(
    text: str, need: Need, tokenizer: str | None = None, *, pad_vocab: bool = False, silent: bool
) -> Iterator[Opened]:
    """The checkpoint that `text` names, as far as `need` goes; without weights it goes with the context."""
    from ..hub.source import opened

    with _interruptible(), opened(text, need, progress_bar(silent), tokenizer=tokenizer, pad_vocab=pad_vocab) as found:
        yield found


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: what was downloaded is kept; the same command goes on from there", err=True)
        raise typer.Exit(130) from None
