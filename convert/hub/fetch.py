"""Brings a repository here as far as a job needs it, and says what that took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..progress import Progress
from ..render import size
from .cache import Cache
from .checks import require_official
from .download import download
from .errors import HubError, HubUnreachableError, offline
from .headers import bring_headers, bring_whole, first_bytes, stand_in_directory
from .ids import HubId
from .need import Need
from .selection import Selection, index_of, keep_named_shards, select
from .server import TRIES, Hub, Repository, Server
from .source import Origin, Source

_OFFLINE = "not compared with the Hub: HF_HUB_OFFLINE is set"
_SIZES = "sizes as published"
_UNREACHABLE = "not compared with the Hub, which cannot be reached"


@contextmanager
def fetched(wanted: HubId, need: Need, progress: Progress, hub: Hub | None = None) -> Iterator[Source]:
    """What `need` takes of the repository. Raises HubError."""
    hub = hub or Hub.from_environment()
    cached = Cache.of(hub.cache, wanted).repository(wanted)
    if hub.is_offline:
        if cached is None:
            raise offline(wanted, found="nothing of that revision")
        yield _from_cache(hub, cached, need, _OFFLINE)
        return
    server = Server(hub)
    try:
        repository = server.repository(wanted, tries=TRIES if cached is None else 2)
    except HubUnreachableError:
        if cached is None or not _is_complete(hub, cached, need):
            raise
        yield _from_cache(hub, cached, need, _UNREACHABLE)
        return
    selection = select(wanted, repository.sizes, need)
    if need in (Need.WEIGHTS, Need.TOKENIZER):
        yield _downloaded(server, repository, selection, progress)
        return
    if cached is not None and cached.commit == repository.commit:
        whole = _narrowed(repository, selection, Cache.of(hub.cache, wanted).snapshot(repository.commit))
        if all(cached.sizes.get(name) == repository.files[name].n_bytes for name in whole.names):
            yield _from_cache(hub, cached, need, _SIZES)
            return
    with stand_in_directory(repository) as root:
        yield _stood_in(server, repository, selection, root, progress)


def _downloaded(server: Server, repository: Repository, selection: Selection, progress: Progress) -> Source:
    root = Cache.of(server.hub.cache, repository.wanted).snapshot(repository.commit)
    notes = require_official(repository, selection.names)
    index = index_of(selection)
    if index is not None:
        download(server, repository, [index], Progress())
        selection = _narrowed(repository, selection, root)
    done = download(server, repository, selection.names, progress)
    origin = _origin(server, repository, selection, _checked(repository, selection.names), notes)
    fetched = size(done.n_bytes) if done.n_bytes else "nothing"
    again = f", {size(done.resumed)} were here from before" if done.resumed else ""
    return Source(
        root / selection.opens,
        origin,
        (
            f"{repository.wanted} at {repository.commit[:7]} of the Hub: {_amount(origin)}, {origin.checked}; "
            f"{fetched} downloaded{again}.",
            *notes,
        ),
    )


def _stood_in(server: Server, repository: Repository, selection: Selection, root: Path, progress: Progress) -> Source:
    notes = require_official(repository, selection.names)
    expected = sum(repository.files[name].n_bytes for name in selection.whole) + first_bytes(repository, selection)
    with progress.during("reading headers", expected):
        bring_whole(server, repository, selection.whole, root, progress)
        selection = _narrowed(repository, selection, root)
        bring_headers(server, repository, selection, root, progress)
    origin = _origin(server, repository, selection, "small files as published, weights not read", notes)
    note = (
        f"Only headers were read, from {repository.wanted} at {repository.commit[:7]} of the Hub: "
        f"{size(origin.fetched_bytes)} of {_amount(origin)}, in {origin.n_requests} requests."
    )
    name = repository.wanted.repository
    return Source(
        root / selection.opens, origin, (note, *notes), f"{name}/{selection.opens}" if selection.opens else name
    )


def _from_cache(hub: Hub, cached: Repository, need: Need, checked: str) -> Source:
    """What the cache holds, without a request. Raises HubError if something is missing."""
    wanted, root = cached.wanted, Cache.of(hub.cache, cached.wanted).snapshot(cached.commit)
    try:
        selection = _narrowed(cached, select(wanted, cached.sizes, need), root)
    except HubError as error:
        raise offline(wanted, found=error.problem) from error
    n_bytes = sum(cached.files[name].n_bytes for name in selection.names)
    origin = Origin(
        repository=wanted.repository,
        path=wanted.path,
        revision=wanted.revision,
        commit=cached.commit,
        n_files=len(selection.names),
        n_bytes=n_bytes,
        fetched_bytes=0,
        n_requests=0,
        checked=checked,
    )
    note = f"{wanted} at {cached.commit[:7]} is taken from the cache: {_amount(origin)}, {checked}."
    return Source(root / selection.opens, origin, (note,))


def _narrowed(repository: Repository, selection: Selection, root: Path) -> Selection:
    """The selection with the shards that its index names, if the index is below `root` already."""
    index = index_of(selection)
    if index is None or not (root / index).is_file():
        return selection
    return keep_named_shards(selection, repository.wanted, root / index, repository.sizes)


def _is_complete(hub: Hub, cached: Repository, need: Need) -> bool:
    try:
        _from_cache(hub, cached, need, "")
    except HubError:
        return False
    return True


def _origin(server: Server, repository: Repository, selection: Selection, checked: str, notes: list[str]) -> Origin:
    wanted, names = repository.wanted, selection.names
    return Origin(
        repository=wanted.repository,
        path=wanted.path,
        revision=wanted.revision,
        commit=repository.commit,
        n_files=len(names),
        n_bytes=sum(repository.files[name].n_bytes for name in names),
        fetched_bytes=server.n_bytes,
        n_requests=server.n_requests,
        checked=checked,
        notes=tuple(notes),
    )


def _checked(repository: Repository, names: tuple[str, ...]) -> str:
    """What the files were compared with."""
    files = [repository.files[name] for name in names]
    unknown = sum(not file.sha256 and not file.git_sha1 for file in files)
    if unknown:
        return f"sizes as published, {len(files) - unknown} of them with their hashes"
    small = sum(not file.sha256 for file in files)
    return "SHA-256 as published" + (f" ({small} small ones by git's SHA-1)" if small else "")


def _amount(origin: Origin) -> str:
    files = "1 file" if origin.n_files == 1 else f"{origin.n_files} files"
    return f"{files}, {size(origin.n_bytes)}"
