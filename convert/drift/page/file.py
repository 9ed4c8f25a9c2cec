"""Where the page is written: beside its name first, so that a name never holds half a page."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ....formats.errors import OutputError

_START = b"<!DOCTYPE html>"


def check_place(path: Path) -> None:
    """Refuses what is better refused before the models are compared: a place that no page can go to.

    A page that is there is replaced; any other file is not.

    Raises:
        OutputError: the directory does not exist, or `path` is something else than a page.
    """
    try:
        if not path.absolute().parent.is_dir():
            raise OutputError(
                "the page's directory does not exist",
                file=path,
                expected=f"the directory {path.absolute().parent}",
                remedy="Create it first.",
            )
        if not path.exists():
            return
        if not path.is_file():
            raise OutputError(
                "the page cannot go here",
                file=path,
                expected="a file name",
                found="no regular file",
                remedy="Give --html another name.",
            )
        with path.open("rb") as opened:
            start = opened.read(len(_START))
    except OSError as error:
        raise _unwritable(path, error) from error
    if start not in (b"", _START):
        raise OutputError(
            "this is no HTML page, so it is not replaced by one", file=path, remedy="Give --html another name."
        )


def write_page(text: str, path: Path) -> None:
    """Writes the page, whole or not at all. Raises OutputError: as `check_place`, or it cannot be written."""
    check_place(path)
    unfinished = path.with_name(path.name + ".partial")
    try:
        try:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the page cannot be written: {error.strerror or error}",
        file=path,
        remedy="Check the directory's permissions and space, or give --html another name.",
    )
