"""Where in a stored tensor an error of a codec is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..formats.errors import CodecError
from .stored import StoredTensor


@contextmanager
def placed(stored: StoredTensor, begin: int, problem: str, *, part: int = -1) -> Iterator[None]:
    """Inside, a CodecError says which file and stored tensor it is about, and from which row on its own rows count.

    Args:
        stored: whose rows are at hand.
        begin: the first of them.
        problem: what cannot be done with the tensor.
        part: which of the arrays that hold it is named. Of MXFP4 the last holds scales, which are what is too large.
    """
    try:
        yield
    except CodecError as error:
        array = stored.spans[part].interval(begin, begin + 1)[0]
        problem = f"{problem} ({stored.tensor.name}, rows from {begin} on): {error.problem}"
        raise error.but(problem=problem, file=array.file, tensor=array.name) from None
