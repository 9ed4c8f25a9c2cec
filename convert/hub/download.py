"""Files of a repository into the cache: only those that are asked for, each checked before it gets its name.

What an ended process had of a file is kept, and the next one goes on from there (huggingface_hub 2.4 itself would
begin that file anew). The bytes are hashed while they arrive.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from ...formats.files import free_bytes
from ..progress import Progress
from ..render import size
from .cache import Cache
from .checks import Hasher, delete_remedy
from .errors import HubError
from .parallel import for_each
from .server import RemoteFile, Repository, Server

# How long to wait for another process before looking whether it is time to give up.
_LOCK_SECONDS = 0.5


@dataclass(frozen=True)
class Downloaded:
    """What a download did: `resumed` bytes were there from an earlier attempt, `cached` files were whole."""

    n_bytes: int
    resumed: int
    cached: int


def download(server: Server, repository: Repository, names: Sequence[str], progress: Progress) -> Downloaded:
    """Makes the files appear in the cache's snapshot of the repository's commit, every one of them checked.

    Raises:
        HubError: a file cannot be had, is another than is published, or there is no room for it.
    """
    cache = Cache.of(server.hub.cache, repository.wanted)
    files = [repository.files[name] for name in names]
    present = [file for file in files if _is_present(cache, repository, file)]
    missing = sorted((file for file in files if file not in present), key=lambda file: -file.n_bytes)
    try:
        _check_present(cache, repository, present, progress)
        resumed = sum(_gathered(cache, repository, file) for file in missing)
        n_bytes = sum(file.n_bytes for file in missing) - resumed
        if missing:
            (cache.folder / "blobs").mkdir(parents=True, exist_ok=True)
            _require_room(cache, repository, n_bytes)
            with progress.during("downloading", n_bytes):
                for_each(missing, partial(_fetch, server, cache, repository, progress))
        cache.remember_revision(repository.wanted.revision, repository.commit)
    except OSError as error:
        raise _disk_error(error, cache, repository) from error
    return Downloaded(n_bytes, resumed, len(present))


def _is_present(cache: Cache, repository: Repository, file: RemoteFile) -> bool:
    """Whether the snapshot has the file; content that another revision brought is linked first."""
    if (cache.snapshot(repository.commit) / file.name).exists():
        return True
    blob = cache.blob(repository.blob_name(file))
    if blob.is_file():
        cache.link(repository.commit, file.name, blob, is_new=False)
        return True
    return False


def _check_present(cache: Cache, repository: Repository, files: Sequence[RemoteFile], progress: Progress) -> None:
    """Compares what was in the cache with what is published: sizes always, hashes once."""
    new = []
    for file in files:
        path = cache.snapshot(repository.commit) / file.name
        found = path.stat().st_size
        if found != file.n_bytes:
            raise HubError(
                "the copy in the cache has another size than the Hub says",
                file=f"{repository.wanted.repository}/{file.name}",
                expected=f"{file.n_bytes:,} bytes",
                found=f"{found:,}",
                remedy=delete_remedy(path.resolve()),
            )
        if not cache.is_checked(path, repository.blob_name(file)):
            new.append(file)
    if new:
        with progress.during("checking", sum(file.n_bytes for file in new)):
            for_each(new, partial(_check, cache, repository, progress))


def _check(cache: Cache, repository: Repository, progress: Progress, file: RemoteFile, stop: threading.Event) -> None:
    path = cache.snapshot(repository.commit) / file.name
    hasher = Hasher(file)
    with path.open("rb") as source:
        while not stop.is_set() and (piece := source.read(1 << 20)):
            hasher.update(piece)
            progress.advance(len(piece), file.name)
    if not stop.is_set():
        hasher.require(repository, delete_remedy(path.resolve()))
        cache.mark_checked(path, repository.blob_name(file))


def _gathered(cache: Cache, repository: Repository, file: RemoteFile) -> int:
    """Bytes of the file that an earlier attempt left."""
    path = cache.partial(repository.blob_name(file))
    n_bytes = path.stat().st_size if path.is_file() else 0
    return n_bytes if n_bytes <= file.n_bytes else 0


def _fetch(
    server: Server,
    cache: Cache,
    repository: Repository,
    progress: Progress,
    file: RemoteFile,
    stop: threading.Event,
) -> None:
    """Gets what is missing of a file, checks the whole, and gives it its name."""
    name = repository.blob_name(file)
    path, blob = cache.partial(name), cache.blob(name)
    with _alone(path.with_suffix(".lock"), stop):
        # Another process may have brought it while this one waited.
        if not stop.is_set() and not blob.exists():
            begin = _gathered(cache, repository, file)
            hasher = _gather(server, repository, file, path, begin, progress, stop)
            if begin and not stop.is_set() and not hasher.holds(repository):
                hasher = _gather(server, repository, file, path, 0, progress, stop)
            if stop.is_set():
                return
            if not hasher.holds(repository):
                path.unlink()
                hasher.require(repository, "What was downloaded is deleted: run the same command again.")
            path.replace(blob)
        if not stop.is_set():
            cache.link(repository.commit, file.name, blob, is_new=True)
            cache.mark_checked(cache.snapshot(repository.commit) / file.name, name)


@contextlib.contextmanager
def _alone(path: Path, stop: threading.Event) -> Iterator[None]:
    """Holds the lock at `path`, or nothing if it is time to give up before it is free."""
    lock = FileLock(path)
    while not stop.is_set():
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            continue
        break
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()
            with contextlib.suppress(OSError):  # on Windows, if another process waits for it
                path.unlink()


def _gather(
    server: Server,
    repository: Repository,
    file: RemoteFile,
    path: Path,
    begin: int,
    progress: Progress,
    stop: threading.Event,
) -> Hasher:
    """Adds what is missing after the first `begin` bytes at `path`; the hashes of all of it."""
    hasher = Hasher(file)
    if begin:
        hasher.update_from(path)
    with path.open("r+b" if begin else "wb") as out:
        out.seek(begin)
        for piece in server.stream(repository, file.name, begin, file.n_bytes):
            out.write(piece)
            hasher.update(piece)
            progress.advance(len(piece), file.name)
            if stop.is_set():
                break
    return hasher


def _require_room(cache: Cache, repository: Repository, n_bytes: int) -> None:
    free = free_bytes(cache.folder)
    if n_bytes > free:
        raise _no_room(cache.folder, repository, f"{size(n_bytes)} free", size(free))


def _no_room(folder: Path, repository: Repository, expected: str, found: str) -> HubError:
    return HubError(
        f"there is no room to download {repository.wanted}",
        file=folder,
        expected=expected,
        found=found,
        remedy="Free space, or set HF_HOME to a directory on a larger disk; run the same command again to go on.",
    )


def _disk_error(error: OSError, cache: Cache, repository: Repository) -> HubError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_room(cache.folder, repository, "free space", error.strerror or "none")
    return HubError(
        f"the cache cannot be used: {error.strerror or error}",
        file=error.filename or cache.folder,
        remedy="Check the permissions, or set HF_HOME to a directory that can be written to.",
    )
