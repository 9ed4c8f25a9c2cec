"""What a long job tells while it runs. The job calls; who watches decides what is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Says nothing. Subclasses show a bar or print lines; `advance` may be called from any thread."""

    @contextmanager
    def during(self, what: str, n_bytes: int) -> Iterator[None]:
        """A stage ("writing", "verifying") of `n_bytes`, as long as the context lasts."""
        self.begin(what, n_bytes)
        completed = False
        try:
            yield
            completed = True
        finally:
            self.end(completed=completed)

    def begin(self, what: str, n_bytes: int) -> None:
        """A stage begins."""

    def advance(self, n_bytes: int, tensor: str) -> None:
        """`n_bytes` more are done; `tensor` is the stored tensor at hand."""

    def end(self, *, completed: bool) -> None:
        """The stage is over, or was given up."""
