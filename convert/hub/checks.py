"""Whether a file is the one that the Hub publishes, and for the official repositories the one that it published first.

large files: size and SHA-256        small files (kept in git): size and git's SHA-1 of "blob <size>\\0" + content
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from .errors import HubError
from .official import OFFICIAL, OfficialRepository
from .server import RemoteFile, Repository

_WEIGHTS = (".safetensors", ".bin")
_READ_BYTES = 1 << 20


class Hasher:
    """Takes a file's bytes in order; `require` compares what they were with what they must be."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(f"blob {file.n_bytes}\0".encode(), usedforsecurity=False)
        self.n_bytes = 0

    def update(self, piece: bytes) -> None:
        """The next bytes."""
        self.n_bytes += len(piece)
        self._sha256.update(piece)
        if self._file.sha256 is None:
            self._git.update(piece)

    def update_from(self, path: Path) -> None:
        """The bytes of a file. Raises OSError."""
        with path.open("rb") as source:
            while piece := source.read(_READ_BYTES):
                self.update(piece)

    def holds(self, repository: Repository) -> bool:
        """Whether `require` would be content."""
        try:
            self.require(repository, "")
        except HubError:
            return False
        return True

    def require(self, repository: Repository, remedy: str) -> None:
        """Raises HubError unless the bytes are those that are published."""
        file = self._file
        where = f"{repository.wanted.repository}/{file.name}"
        if self.n_bytes != file.n_bytes:
            expected, found = f"{file.n_bytes:,} bytes", f"{self.n_bytes:,}"
            raise HubError(
                "the file has another size than the Hub says", file=where, expected=expected, found=found, remedy=remedy
            )
        published = _published(repository, file.name)
        pairs = (
            ("SHA-256", file.sha256, self._sha256.hexdigest()),
            ("git's SHA-1", None if file.sha256 else file.git_sha1, self._git.hexdigest()),
            ("SHA-256", published, self._sha256.hexdigest()),
        )
        for what, digest, actual in pairs:
            if digest is not None and digest != actual:
                problem = f"the file is not the one that was published: its {what} differs"
                raise HubError(problem, file=where, expected=digest, found=actual, remedy=remedy)


def require_official(repository: Repository, names: tuple[str, ...]) -> list[str]:
    """What to say of official files that the Hub now describes in another way than when they were published.

    Raises:
        HubError: a weights file is another, or any file at the very revision that is known.
    """
    official = OFFICIAL.get(repository.wanted.repository)
    changed = [name for name in names if official and _differs(repository.files[name], official)]
    if not official or not changed:
        return []
    for name in changed:
        file, known = repository.files[name], official.files[name]
        if _binds(repository, official, name):
            raise HubError(
                "the Hub offers another file than the official one of that name",
                file=f"{repository.wanted.repository}/{name}",
                expected=f"{known.n_bytes:,} bytes, SHA-256 {known.sha256 or 'unknown'}",
                found=f"{file.n_bytes:,} bytes, SHA-256 {file.sha256 or 'not given'}",
                remedy=f"Check HF_ENDPOINT; or give {repository.wanted.repository}@{official.commit}, which is known.",
            )
    changes = ", ".join(changed)
    return [f"Changed since revision {official.commit[:7]}, whose files are known here: {changes}."]


def delete_remedy(path: Path) -> str:
    """How to get rid of a damaged copy in the cache."""
    command = f'del "{path}"' if os.name == "nt" else f"rm {shlex.quote(str(path))}"
    return f"Delete the copy in the cache and run the same command again: {command}"


def _differs(file: RemoteFile, official: OfficialRepository) -> bool:
    known = official.files.get(file.name)
    if known is None:
        return False
    return file.n_bytes != known.n_bytes or file.sha256 not in (None, known.sha256 or file.sha256)


def _published(repository: Repository, name: str) -> str | None:
    """The official SHA-256 where it binds."""
    official = OFFICIAL.get(repository.wanted.repository)
    if official is None or name not in official.files:
        return None
    return official.files[name].sha256 if _binds(repository, official, name) else None


def _binds(repository: Repository, official: OfficialRepository, name: str) -> bool:
    """Whether the file must be the official one: weights always, others at the known revision."""
    return repository.commit == official.commit or name.endswith(_WEIGHTS)
