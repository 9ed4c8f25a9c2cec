"""What a long job tells while it runs. The job calls; who watches decides what is seen."""

from __future__ import annotations


class Progress:
    """Says nothing. Subclasses show a bar or print lines; their methods may be called from any thread."""

    def begin(self, what: str, n_bytes: int) -> None:
        """A stage ("writing", "verifying") of `n_bytes` begins."""

    def advance(self, n_bytes: int, tensor: str) -> None:
        """`n_bytes` more are done; `tensor` is the stored tensor at hand."""

    def end(self) -> None:
        """The stage is over."""
