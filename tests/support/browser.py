"""A headless Chromium: pictures of a page, the page on paper, and how it is laid out.

Each call is a process of its own. The page itself has no script: `layout` puts it into frames of a page that has one,
which measures them.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)"

_SECONDS = 120

_MEASURE = """
const found = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, root = page.documentElement, width = root.clientWidth;
  const beyond = [], covered = [];
  for (const one of page.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (one.closest(".hidden") || one.closest("defs") || one.closest("desc, title")) continue;
    const inside = one.closest(".scroll");
    if ((!inside || inside === one) && box.width && (box.right > width + 0.5 || box.left < -0.5))
      beyond.push(one.tagName + " " + (one.getAttribute("class") || "") + ": " + one.textContent.slice(0, 40));
  }
  for (const svg of page.querySelectorAll("svg")) {
    const texts = [...svg.querySelectorAll("text")].filter(one => one.getBoundingClientRect().width);
    texts.forEach((one, place) => texts.slice(place + 1).forEach(other => {
      const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
      if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
        covered.push(one.textContent + " and " + other.textContent);
    }));
  }
  found.push({name: frame.name, width, scroll: root.scrollWidth, height: root.scrollHeight, beyond, covered});
}
document.getElementById("found").textContent = JSON.stringify(found);
"""


@dataclass(frozen=True)
class Layout:
    """How a page fits into a window.

    Attributes:
        width: of the window, in pixels.
        scroll: how wide the page is; more than `width` if it has to be moved sideways.
        height: how high it is.
        beyond: elements that reach over an edge, those that scroll by themselves left out.
        covered: pairs of texts in a chart that lie on one another.
    """

    width: int
    scroll: int
    height: int
    beyond: tuple[str, ...]
    covered: tuple[str, ...]


def find() -> str | None:
    """The browser's path; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def screenshot(page: Path, out: Path, width: int, height: int, *, dark: bool = False) -> None:
    """A PNG of the top of the page in a window of this size."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _run(f"--window-size={width},{height}", f"--screenshot={out}", *scheme, page.as_uri())


def print_to_pdf(page: Path, out: Path) -> None:
    _run("--no-pdf-header-footer", f"--print-to-pdf={out}", page.as_uri())


def layout(pages: Mapping[str, str], widths: Sequence[int], directory: Path) -> dict[tuple[str, int], Layout]:
    """Each page in windows of each width, by its name and the width."""
    frames = [
        f'<iframe name="{name}@{width}" style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}">'
        "</iframe>"
        for name, text in pages.items()
        for width in widths
    ]
    harness = directory / "harness.html"
    script = f"<script>window.onload = () => {{ {_MEASURE} }};</script>"
    harness.write_text(f'<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>{script}{"".join(frames)}', "utf-8")
    dumped = _run("--window-size=1600,1000", "--virtual-time-budget=20000", "--dump-dom", harness.as_uri())
    found = re.search(r'<pre id="found">(.+?)</pre>', dumped, re.DOTALL)
    assert found, f"the browser measured nothing: {dumped[:500]}"
    layouts = {}
    for one in json.loads(html.unescape(found[1])):
        name, width = one.pop("name").rsplit("@", 1)
        beyond, covered = tuple(one.pop("beyond")), tuple(one.pop("covered"))
        layouts[name, int(width)] = Layout(**one, beyond=beyond, covered=covered)
    return layouts


def pixels(path: Path) -> NDArray[np.uint8]:
    """A PNG of 8 bits per channel without interlacing, [height, width, 3 or 4]."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    packed, place = b"", 8
    while place < len(data):
        (length,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        chunk = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", chunk[:10])
        packed += chunk if kind == b"IDAT" else b""
        place += length + 12
    channels = {2: 3, 6: 4}[colour]
    assert depth == 8
    raw = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    rows = np.zeros((height + 1, width * channels), np.uint8)
    for number, row in enumerate(raw):
        rows[number + 1] = _unfiltered(int(row[0]), row[1:], rows[number], channels)
    return rows[1:].reshape(height, width, channels)


def _unfiltered(kind: int, row: NDArray[np.uint8], above: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Source: the PNG specification, section 9."""
    if kind in (0, 2):
        return row + above if kind else row
    if kind == 1:
        return np.cumsum(row.reshape(-1, channels), axis=0, dtype=np.uint8).reshape(-1)
    out, up = [0] * channels, [0] * channels + above.tolist()
    for place, value in enumerate(row.tolist(), start=channels):
        left, over, corner = out[place - channels], up[place], up[place - channels]
        if kind == 3:
            guess = (left + over) // 2
        else:
            off = [abs(over - corner), abs(left - corner), abs(left + over - 2 * corner)]
            guess = (left, over, corner)[off.index(min(off))]
        out.append((value + guess) & 255)
    return np.array(out[channels:], np.uint8)


def _run(*arguments: str) -> str:
    """Runs the browser to its end and gives what it wrote to standard output; kills it if it takes too long."""
    browser = find()
    assert browser is not None
    with _profile() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            raise
    assert process.returncode == 0, err.decode(errors="replace")[-2000:]
    return out.decode()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and those that it started: it leads a group of its own."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


@contextmanager
def _profile() -> Iterator[str]:
    # The browser may still write into it when its first process has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        yield directory
