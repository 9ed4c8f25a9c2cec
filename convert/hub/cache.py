"""Hugging Face's cache on the disk, which other programs use too.

    <cache>/models--org--name/
        refs/main                     the commit that main was when it was last asked for
        blobs/<hash>                  a file's content: SHA-256 of large files, git's SHA-1 of small ones
        snapshots/<commit>/<name>     a link to the content, or the file itself where links cannot be made
        .gptoss-convert/<hash>        ours: the content had this hash when it had this size and time

Source: huggingface_hub, "Understand caching".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from .ids import HubId, is_commit
from .server import RemoteFile, Repository

_MARKS = ".gptoss-convert"


@dataclass(frozen=True)
class Cache:
    """The part of the cache that belongs to one repository."""

    folder: Path

    @classmethod
    def of(cls, cache: Path, wanted: HubId) -> Cache:
        """The part for the repository of `wanted`."""
        return cls(cache / f"models--{wanted.repository.replace('/', '--')}")

    def snapshot(self, commit: str) -> Path:
        """The directory with the files of that commit."""
        return self.folder / "snapshots" / commit

    def blob(self, name: str) -> Path:
        """Where content of that name lies, or will."""
        return self.folder / "blobs" / name

    def partial(self, name: str) -> Path:
        """Where content is gathered until it is whole and checked."""
        return self.folder / "blobs" / f"{name}.gptoss-convert.incomplete"

    def link(self, commit: str, name: str, blob: Path, *, is_new: bool) -> None:
        """Makes the file appear in its snapshot. Raises OSError.

        Where links cannot be made, new content is moved there, and content that others may use is copied.
        """
        path = self.snapshot(commit) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        if not constants.HF_HUB_DISABLE_SYMLINKS:
            with contextlib.suppress(OSError):
                path.symlink_to(os.path.relpath(blob, path.parent))
                return
        if is_new:
            blob.replace(path)
        else:
            shutil.copyfile(blob, path)

    def remember_revision(self, revision: str, commit: str) -> None:
        """Notes which commit a branch or tag is, for use offline. Raises OSError."""
        if revision != commit:
            path = self.folder / "refs" / revision
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
            new.write_text(commit, encoding="utf-8")
            new.replace(path)

    def repository(self, wanted: HubId) -> Repository | None:
        """What the cache holds of that revision, without asking anybody; None if nothing."""
        commit = wanted.revision
        if not is_commit(commit):
            try:
                commit = (self.folder / "refs" / wanted.revision).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                return None
        root = self.snapshot(commit)
        if not is_commit(commit) or not root.is_dir():
            return None
        files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        found = {name: RemoteFile(name, path.stat().st_size) for name, path in files.items()}
        return Repository(wanted, commit, found)

    def is_checked(self, content: Path, name: str) -> bool:
        """True if the content was found to have its hash, and has not been written to since."""
        with contextlib.suppress(OSError):
            return (self.folder / _MARKS / name).read_text(encoding="utf-8") == _state(content)
        return False

    def mark_checked(self, content: Path, name: str) -> None:
        """Notes that the content has its hash. A cache that cannot be written to stays without the note."""
        with contextlib.suppress(OSError):
            path = self.folder / _MARKS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_state(content), encoding="utf-8")


def _state(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
