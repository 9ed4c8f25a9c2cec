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
            raise OutputError(
                "the output is a directory", file=path, expected="a file name", remedy="Give the name of a file in it."
            )
        if _belongs_to(path, plan) or _belongs_to(partial(path), plan):
            raise OutputError("the output is the source, or a part of it", file=path, remedy="Choose another name.")
        if path.exists() and not force:
            raise OutputError("the output exists already", file=path, remedy="Use --force to replace it.")


def require_parent(plan: Plan) -> None:
    """Raises OutputError if the directory that the output is to lie in is not there."""
    root = _root(plan)
    if not root.parent.is_dir():
        raise OutputError(
            "the output's directory does not exist",
            file=root,
            expected=f"the directory {root.parent}",
            remedy="Create it first.",
        )


def _root(plan: Plan) -> Path:
    """The directory that appears as a whole, or the first file."""
    return (plan.layout.atomic_directory or plan.paths[0]).absolute()


def _belongs_to(path: Path, plan: Plan) -> bool:
    """True if `path` is a file that the source needs: its weights, or what lies beside them and is no other output."""
    if not path.exists():
        return False
    # What stands in for files of the Hub may be gone.
    if any(source.exists() and path.samefile(source) for source in plan.source.files):
        return True
    directory = plan.source.tokenizer_directory
    beside = directory is not None and path.resolve().parent == directory.resolve()
    return beside and path.suffix not in (".gguf", SUFFIX)


def partial(path: Path) -> Path:
    """Where what will be `path` is written first."""
    path = path.absolute()
    return path.with_name(path.name + SUFFIX)


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    """Removes the file at the end, if the system lets it."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


class Staging:
    """Where each output is while it is written, and the step that names it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._directory = plan.layout.atomic_directory
        self._root = _root(plan)

    def path(self, final: Path) -> Path:
        """Where the file that will be `final` is written."""
        if self._directory is not None:
            return partial(self._root) / final.name
        return partial(final)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Checks space, locks the output against a second run, and leaves nothing behind on failure."""
        unfinished = partial(self._root)
        lock_path = unfinished.with_name(unfinished.name + ".lock")
        try:
            require_parent(self._plan)
            with FileLock(lock_path, timeout=0), _removed(lock_path):
                self._refuse_foreign(unfinished)
                try:
                    self.discard()
                    self._check_space()
                    if self._directory is not None:
                        unfinished.mkdir()
                    yield
                finally:
                    self.discard()
        except Timeout:
            if not lock_path.exists():
                raise OutputError(
                    "the file cannot be written",
                    file=self._root,
                    expected=f"a directory that takes files; {self._root.parent} takes none",
                    remedy="Choose a directory that you may write to.",
                ) from None
            raise OutputError(
                "another run is writing it",
                file=self._root,
                remedy=f"Wait for it to end; if none is running, delete {lock_path}.",
            ) from None

    def commit(self) -> None:
        """Gives the outputs their final names: a new directory at once, files the first last, where loaders begin."""
        if self._directory is not None and not self._root.exists():
            replace_file(partial(self._root), self._root)
        else:
            first, *others = self._plan.paths
            if others and self._directory is None:
                # An older first shard must not be found with new others.
                first.unlink(missing_ok=True)
            for final in reversed(self._plan.paths):
                replace_file(self.path(final), final)
            sync_directory(self._root if self._directory is not None else self._root.parent)
        sync_directory(self._root.parent)

    def discard(self) -> None:
        """Removes what is unfinished."""
        if self._directory is not None:
            shutil.rmtree(partial(self._root), ignore_errors=True)
            return
        for final in self._plan.paths:
            self.path(final).unlink(missing_ok=True)

    def _refuse_foreign(self, unfinished: Path) -> None:
        """A directory that only looks like one of ours is not removed."""
        if self._directory is None or not unfinished.is_dir():
            return
        ours = {path.name for path in self._plan.paths}
        foreign = sorted(path.name for path in unfinished.iterdir() if path.name not in ours)
        if foreign:
            raise OutputError(
                "the directory is in the way of the unfinished output",
                file=unfinished,
                expected="nothing, or what an interrupted run left",
                found=foreign[0],
                remedy="Move it away.",
            )

    def _check_space(self) -> None:
        free, needed = free_bytes(self._root.parent), 0 if self._plan.is_sparse else self._plan.n_bytes
        if needed > free:
            raise OutputError(
                "the disk has too little free space",
                file=self._root.parent,
                expected=f"{needed:,} bytes",
                found=f"{free:,} bytes free",
                remedy="Free some space or write to another disk; nothing was written.",
            )
