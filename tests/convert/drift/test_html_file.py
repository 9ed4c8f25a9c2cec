"""Where `drift --html` writes: whole pages alone, and over nothing but pages."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest

from gptoss_convert.convert.drift.page.file import check_place, write_page
from gptoss_convert.formats.errors import OutputError

PAGE = "<!DOCTYPE html>\n<p>–</p>\n"


def test_a_page_is_written_in_utf8(tmp_path: Path) -> None:
    write_page(PAGE, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == PAGE.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize("before", [PAGE, ""])
def test_a_page_and_an_empty_file_are_replaced(tmp_path: Path, before: str) -> None:
    path = tmp_path / "a.html"
    path.write_text(before, encoding="utf-8")
    write_page(PAGE + "new", path)
    assert path.read_text(encoding="utf-8").endswith("new")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.gguf", "this is no HTML page, so it is not replaced by one"),
        ("directory", "the page cannot go here; expected a file name"),
        ("missing/a.html", "the page's directory does not exist; expected the directory"),
        ("n" * 300, "the page cannot be written"),
    ],
)
def test_a_place_for_no_page_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "directory").mkdir()
    with pytest.raises(OutputError, match=re.escape(said)) as raised:
        check_place(tmp_path / name)
    assert raised.value.file == str(tmp_path / name)
    with pytest.raises(OutputError, match=re.escape(said)):
        write_page(PAGE, tmp_path / name)
    assert (tmp_path / "model.gguf").read_bytes() == b"GGUF"


def test_a_page_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(PAGE, encoding="utf-8")
    with (
        mock.patch.object(Path, "replace", side_effect=OSError(28, "No space left on device")),
        pytest.raises(OutputError, match="the page cannot be written: No space left on device"),
    ):
        write_page(PAGE + "new", path)
    assert path.read_text(encoding="utf-8") == PAGE
    assert [one.name for one in tmp_path.iterdir()] == ["a.html"]
