"""Outputs under construction: written as `.partial`, given their names only when they are whole and proven."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..formats.errors import OutputError
from ..formats.files import free_bytes, replace_file, sync_directory
from .plan import Plan

SUFFIX = ".partial"


def refuse_existing(plan: Plan, *, force: bool) -> None:
    """Raises OutputError if an output is there already and `force` is not set, or lies where none can be written."""
    directory = plan.layout.atomic_directory
    if directory is not None:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise OutputError(
                "the output exists already",
                file=directory,
                expected="a new or an empty directory",
                remedy="Choose another directory, or remove this one first.",
            )
        return
    for path in plan.paths:
        if path.is_dir():
            raise OutputError("the output is a directory", file=path, expected="a file name")
        if path.exists() and any(path.samefile(source) for source in plan.source.files):
            raise OutputError("the output is the source", file=path, remedy="Choose another name.")
        if path.exists() and not force:
            raise OutputError("the output exists already", file=path, remedy="Use --force to replace it.")


class Staging:
    """Where each output is while it is written, and the step that names it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._directory = plan.layout.atomic_directory
        self._root = self._directory or plan.paths[0]

    def path(self, final: Path) -> Path:
        """Where the file that will be `final` is written."""
        if self._directory is not None:
            return self._partial(self._directory) / final.name
        return self._partial(final)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Checks space, locks the output against a second run, and leaves nothing behind on failure."""
        lock_path = self._root.with_name(self._root.name + ".lock")
        try:
            if not self._root.parent.is_dir():
                raise OutputError(
                    "the output's directory does not exist",
                    file=self._root,
                    expected=f"the directory {self._root.parent}",
                    remedy="Create it first.",
                )
            with FileLock(lock_path, timeout=0):
                try:
                    self.discard()
                    self._check_space()
                    if self._directory is not None:
                        self._partial(self._directory).mkdir()
                    yield
                finally:
                    self.discard()
                    with contextlib.suppress(OSError):
                        lock_path.unlink()
        except Timeout:
            raise OutputError(
                "another run is writing it",
                file=self._root,
                remedy=f"Wait for it to end; if none is running, delete {lock_path}.",
            ) from None

    def commit(self) -> None:
        """Gives the outputs their final names. Of split files the first is named last: loaders begin with it."""
        if self._directory is not None:
            if self._directory.exists():
                self._directory.rmdir()
            replace_file(self._partial(self._directory), self._directory)
        else:
            for final in reversed(self._plan.paths):
                replace_file(self.path(final), final)
        sync_directory(self._root.parent)

    def discard(self) -> None:
        """Removes what is unfinished."""
        if self._directory is not None:
            shutil.rmtree(self._partial(self._directory), ignore_errors=True)
            return
        for final in self._plan.paths:
            self.path(final).unlink(missing_ok=True)

    def _check_space(self) -> None:
        free, needed = free_bytes(self._root.parent), self._plan.n_bytes
        if needed > free:
            raise OutputError(
                "the disk has too little free space",
                file=self._root.parent,
                expected=f"{needed:,} bytes",
                found=f"{free:,} bytes free",
                remedy="Free some space or write to another disk; nothing was written.",
            )

    @staticmethod
    def _partial(path: Path) -> Path:
        return path.with_name(path.name + SUFFIX)
