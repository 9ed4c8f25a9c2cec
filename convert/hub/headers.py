"""A checkpoint's headers without its weights: a stand-in directory of sparse files as long as the remote ones.

The strict readers open it as they open any checkpoint. Small files are whole, and checked; of files with weights only
the header's bytes are there. What is behind them reads as zeros, so nothing may ever read weights from it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ...formats.containers.gguf_reader import read_gguf
from ...formats.containers.metal import read_metal
from ...formats.containers.safetensors import MAX_HEADER_BYTES
from ...formats.errors import FormatError
from ...formats.files import DataFile, open_data_file
from ..progress import Progress
from ..sources.gguf import recognises_gguf
from ..sources.metal import recognises_metal
from .cache import Cache
from .checks import Hasher
from .parallel import for_each
from .selection import Selection
from .server import RemoteFile, Repository, Server

STEPS = (64 << 10, 1 << 20, 16 << 20, 64 << 20)
"""How many bytes of a file are there after each request. Only a GGUF's tokenizer (13 MB) needs the third."""

_LENGTH_BYTES = 8


@contextmanager
def stand_in_directory(repository: Repository) -> Iterator[Path]:
    """An empty directory for stand-ins, gone when the context ends. Its path ends with the repository's name."""
    with tempfile.TemporaryDirectory(prefix="gptoss-convert-", ignore_cleanup_errors=True) as parent:
        root = Path(parent) / repository.wanted.repository
        root.mkdir(parents=True)
        yield root


def bring_whole(server: Server, repository: Repository, names: tuple[str, ...], root: Path, progress: Progress) -> None:
    """Puts small files into `root`, from the cache where it has them. Raises HubError."""
    for_each([repository.files[name] for name in names], partial(_bring, server, repository, root, progress))


def bring_headers(server: Server, repository: Repository, selection: Selection, root: Path, progress: Progress) -> None:
    """Puts stand-ins of the files with weights into `root`. Raises HubError."""
    for name in selection.named:
        _stand_in(root / name, repository.files[name].n_bytes).close()
    files = [repository.files[name] for name in selection.weights]
    for_each(files, partial(_bring_header, server, repository, root, progress))


def first_bytes(repository: Repository, selection: Selection) -> int:
    """Bytes that the first requests for headers fetch; often they are enough."""
    return sum(min(STEPS[0], repository.files[name].n_bytes) for name in selection.weights)


def _bring(
    server: Server, repository: Repository, root: Path, progress: Progress, file: RemoteFile, stop: threading.Event
) -> None:
    path = root / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    cached = Cache.of(server.hub.cache, repository.wanted).snapshot(repository.commit) / file.name
    if cached.is_file() and cached.stat().st_size == file.n_bytes:
        shutil.copyfile(cached, path)
        progress.advance(file.n_bytes, file.name)
        return
    hasher = Hasher(file)
    with path.open("wb") as out:
        for piece in server.stream(repository, file.name, 0, file.n_bytes):
            out.write(piece)
            hasher.update(piece)
            progress.advance(len(piece), file.name)
            if stop.is_set():
                return
    hasher.require(
        repository, "Run the same command again; if it stays so, the Hub or HF_ENDPOINT serves damaged files."
    )


def _bring_header(
    server: Server, repository: Repository, root: Path, progress: Progress, file: RemoteFile, stop: threading.Event
) -> None:
    path = root / file.name
    with _stand_in(path, file.n_bytes) as out:
        there, end = 0, min(STEPS[0], file.n_bytes)
        while there < end and not stop.is_set():
            for piece in server.stream(repository, file.name, there, end):
                out.write_at(memoryview(piece), there)
                there += len(piece)
                progress.advance(len(piece), file.name)
            end = min(_header_end(path, there), file.n_bytes)


def _stand_in(path: Path, n_bytes: int) -> DataFile:
    """A new file of that length without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = open_data_file(path, create=True)
    out.resize(n_bytes, sparse=True)
    return out


def _header_end(path: Path, there: int) -> int:
    """How many bytes must be there for the header to be whole, as far as `there` bytes tell; `there` if that is enough.

    The strict readers say where a GGUF or Metal header ends. While bytes are missing they read zeros, and complain; if
    they still do after the last step, they will do so again when the checkpoint is opened.
    """
    if recognises_gguf(path):
        end = _end_or_none(lambda: read_gguf(path).data_offset)
    elif recognises_metal(path):
        end = _end_or_none(lambda: read_metal(path).weights_offset)
    else:
        with path.open("rb") as file:
            n_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        return _LENGTH_BYTES + n_bytes if n_bytes <= MAX_HEADER_BYTES else there
    if end is not None and end <= there:
        return there
    return next((step for step in STEPS if step > there), there)


def _end_or_none(read: Callable[[], int]) -> int | None:
    try:
        return read()
    except FormatError:
        return None
