"""Requests to the Hub: what a repository holds, and any range of its files.

Whatever fails for a moment is tried again; a connection that was cut goes on where it ended. Every request goes to the
Hub itself, which redirects to where large files lie: the token stays with the Hub, and no address grows too old.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from ... import __version__
from .errors import HTTP_ERROR, REQUEST_ERRORS, HubError, explained, no_revision, status_of
from .ids import HubId, is_commit, is_plain_path

Result = TypeVar("Result")

TRIES = 5
MAX_WAIT_SECONDS = 60.0
"""A server that asks to wait longer than this is not waited for."""

MAX_RESPONSE_BYTES = 8 << 30
"""Most bytes asked for in one request: what serves the files limits a response."""

CHUNK_BYTES = 256 << 10
_LIBRARY = "gptoss-convert"


@dataclass(frozen=True)
class Hub:
    """Where the Hub is, and how it is asked. `token` None takes that of HF_TOKEN or of `hf auth login`."""

    endpoint: str
    cache: Path
    token: str | bool | None = None
    is_offline: bool = False
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)

    @classmethod
    def from_environment(cls) -> Hub:
        """As HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE say, which huggingface_hub reads."""
        return cls(constants.ENDPOINT, Path(constants.HF_HUB_CACHE), is_offline=constants.HF_HUB_OFFLINE)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. The Hub publishes a SHA-256 of large files, and git's SHA-1 of small ones."""

    name: str
    n_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Repository:
    """The files of one commit by name."""

    wanted: HubId
    commit: str
    files: dict[str, RemoteFile]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by name."""
        return {name: file.n_bytes for name, file in self.files.items()}

    def blob_name(self, file: RemoteFile) -> str:
        """What the cache calls the file's content: as other programs that use the same cache do."""
        place = f"{self.wanted.repository}/{self.commit}/{file.name}"
        return file.sha256 or file.git_sha1 or hashlib.sha256(place.encode()).hexdigest()


class Server:
    """Asks one Hub. May be used by several threads; counts what it gets."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.n_requests = 0
        self.n_bytes = 0
        self._headers = build_hf_headers(token=hub.token, library_name=_LIBRARY, library_version=__version__)
        self._api = HfApi(hub.endpoint, hub.token, library_name=_LIBRARY, library_version=__version__)
        self._lock = threading.Lock()

    def repository(self, wanted: HubId, tries: int = TRIES) -> Repository:
        """What the repository holds at that revision. Raises HubError."""
        info = self._patiently(lambda: self._info(wanted), wanted, tries)
        if info.sha is None or not is_commit(info.sha):
            raise _strange(wanted, "a commit hash", repr(info.sha))
        files = {}
        for entry in info.siblings or ():
            if is_plain_path(entry.rfilename):
                files[entry.rfilename] = self._file(entry, wanted.at(entry.rfilename), info.sha)
        return Repository(wanted, info.sha, files)

    def stream(self, repository: Repository, name: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `begin … end - 1` of a file, in pieces; cut connections are taken up again. Raises HubError."""
        wanted = repository.wanted.at(name)
        url = self._url(wanted, repository.commit)
        position, failures = begin, 0
        while position < end:
            before = position
            try:
                for piece in self._pieces(url, position, min(end, position + MAX_RESPONSE_BYTES)):
                    position += len(piece)
                    yield piece
                problem: Exception | None = None
            except REQUEST_ERRORS as error:
                problem = error
            if position == end or (position > before and problem is None):
                continue
            failures = 1 if position > before else failures + 1
            self._pause(problem, wanted, failures)

    def _url(self, wanted: HubId, commit: str) -> str:
        return hf_hub_url(wanted.repository, wanted.path, revision=commit, endpoint=self.hub.endpoint)

    def _pieces(self, url: str, begin: int, end: int) -> Iterator[bytes]:
        """One request's answer. A server that ignores the range sends all; what was not asked for is dropped."""
        headers = {**self._headers, "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            self._count(requests=1)
            hf_raise_for_status(response)
            surplus, left = (0 if response.status_code == 206 else begin), end - begin
            for piece in response.iter_bytes(CHUNK_BYTES):
                self._count(n_bytes=len(piece))
                dropped = min(surplus, len(piece))
                surplus -= dropped
                kept = piece[dropped : dropped + left]
                left -= len(kept)
                if kept:
                    yield kept
                if not left:
                    return

    def _info(self, wanted: HubId) -> Any:
        return self._api.model_info(
            wanted.repository, revision=wanted.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )

    def _file(self, entry: Any, wanted: HubId, commit: str) -> RemoteFile:
        """A file of the listing; a mirror that leaves sizes out is asked for the file's own."""
        n_bytes, sha256, git_sha1 = entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id
        if n_bytes is None:
            url = self._url(wanted, commit)
            found = self._patiently(lambda: get_hf_file_metadata(url, headers=self._headers), wanted)
            n_bytes, sha256, git_sha1 = found.size, found.etag, found.etag
        if type(n_bytes) is not int or n_bytes < 0:
            raise _strange(wanted, "the size of the file", repr(n_bytes))
        return RemoteFile(entry.rfilename, n_bytes, _hexadecimal(sha256, 64), _hexadecimal(git_sha1, 40))

    def _patiently(self, ask: Callable[[], Result], wanted: HubId, tries: int = TRIES) -> Result:
        failures = 0
        while True:
            self._count(requests=1)
            try:
                return ask()
            except REQUEST_ERRORS as error:
                failures += 1
                self._pause(error, wanted, failures, tries)

    def _pause(self, error: Exception | None, wanted: HubId, failures: int, tries: int = TRIES) -> None:
        """Waits before the next try, or raises the error in our words if another try is no use."""
        if error is None:
            error = HTTP_ERROR("the answer ended too early")
        status = status_of(error)
        seconds = _asked_to_wait(error)
        lasting = isinstance(error, ConnectionError) or (
            status is not None and status not in (408, 429) and status < 500
        )
        if lasting or failures >= tries or (seconds or 0) > MAX_WAIT_SECONDS:
            raise self._explained(error, wanted, failures, seconds) from None
        self.hub.wait(2.0 ** (failures - 1) if seconds is None else seconds + 1)

    def _explained(self, error: Exception, wanted: HubId, tries: int, seconds: float | None) -> HubError:
        told = explained(error, wanted, endpoint=self.hub.endpoint, tries=tries, seconds=seconds)
        if getattr(error, "response", None) is None or "such revision" not in told.problem:
            return told
        try:
            refs = self._api.list_repo_refs(wanted.repository)
        except REQUEST_ERRORS:
            return told
        return no_revision(wanted, [ref.name for ref in (*refs.branches, *refs.tags)])

    def _count(self, *, requests: int = 0, n_bytes: int = 0) -> None:
        with self._lock:
            self.n_requests += requests
            self.n_bytes += n_bytes


def _asked_to_wait(error: Exception) -> float | None:
    """The seconds in Retry-After, if the server sent any."""
    if status_of(error) is None:
        return None
    said = error.response.headers.get("Retry-After", "").strip()  # type: ignore[attr-defined]
    return float(said) if said.isdecimal() else None


def _hexadecimal(text: object, n_digits: int) -> str | None:
    """`text` if it is such a number: it becomes the name of a file."""
    return text if isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{n_digits}}}", text) else None


def _strange(wanted: HubId, expected: str, found: str) -> HubError:
    remedy = "Check HF_ENDPOINT: what answers there is no Hub."
    return HubError(
        "the answer is not what a Hub gives", file=str(wanted), expected=expected, found=found, remedy=remedy
    )
