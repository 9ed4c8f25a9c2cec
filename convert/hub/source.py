"""SRC as every command takes it: a path, or a repository of the Hub that is brought here as far as a job needs it.

    headers, plan    → a stand-in with whole small files and the headers of the others; no weight is downloaded
    weights          → the files in Hugging Face's cache, each checked

Nothing of huggingface_hub is imported for a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ...formats.errors import CheckpointError, GptOssConvertError
from ..checkpoint import Checkpoint, open_checkpoint
from ..progress import Progress
from ..reading import SlabReader
from .ids import parse_id, parse_source
from .need import Need

if TYPE_CHECKING:
    from .server import Hub


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint of the Hub came from, and what was fetched for it.

    Attributes:
        n_files, n_bytes: the checkpoint's files and their size.
        fetched_bytes, n_requests: what the job took from the network for it.
        checked: what each file was compared with.
    """

    repository: str
    path: str
    revision: str
    commit: str
    n_files: int
    n_bytes: int
    fetched_bytes: int
    n_requests: int
    checked: str
    notes: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """As JSON data."""
        names = {"n_files": "files", "n_bytes": "bytes", "n_requests": "requests"}
        return {names.get(key, key): value for key, value in asdict(self).items()} | {"notes": list(self.notes)}


@dataclass(frozen=True)
class Source:
    """A source that is on this machine now. `stand_in_for` names the repository if its weights are not here."""

    path: Path
    origin: Origin | None = None
    notes: tuple[str, ...] = ()
    stand_in_for: str | None = None


@dataclass(frozen=True)
class Opened:
    """A checkpoint, and where it came from if that is the Hub."""

    checkpoint: Checkpoint
    origin: Origin | None = None


@contextmanager
def resolved(text: str, need: Need, progress: Progress | None = None, hub: Hub | None = None) -> Iterator[Source]:
    """The source that `text` names, brought here as far as `need` goes. What stands in for it goes with the context.

    Args:
        text: a path, or org/name[/folder or file][@revision]. A path that exists is taken as one.
        hub: the Hub to ask; that of the environment if not given.

    Raises:
        CheckpointError, TokenizerError, UsageError: it is neither.
        HubError: the Hub does not give it.
    """
    wanted = parse_source(text, tokenizer=need is Need.TOKENIZER)
    if isinstance(wanted, Path):
        yield Source(wanted, notes=_path_notes(text))
        return
    from .fetch import fetched

    with fetched(wanted, need, progress or Progress(), hub) as source:
        try:
            yield source
        except GptOssConvertError as error:
            if source.stand_in_for is None:
                raise
            raise _renamed(error, source.path, source.stand_in_for) from error


def brought(text: str, progress: Progress | None = None, need: Need = Need.WEIGHTS, hub: Hub | None = None) -> Source:
    """The source with its weights, or its tokenizer: files that stay where they are. Raises as `resolved`."""
    assert need in (Need.WEIGHTS, Need.TOKENIZER), "a stand-in goes with its context"
    with resolved(text, need, progress, hub) as source:
        return source


@contextmanager
def opened(
    text: str,
    need: Need,
    progress: Progress | None = None,
    *,
    tokenizer: str | None = None,
    pad_vocab: bool = False,
    hub: Hub | None = None,
) -> Iterator[Opened]:
    """The checkpoint that `text` names, with the tokenizer that `tokenizer` names, if any; as `resolved`.

    Unless `need` is for weights, a checkpoint of the Hub gives none: reading them is refused.
    """
    with resolved(text, need, progress, hub) as source:
        if tokenizer is None:
            yield _opened(source, None, pad_vocab)
        else:
            with resolved(tokenizer, Need.TOKENIZER, progress, hub) as beside:
                yield _opened(source, beside.path, pad_vocab)


def _opened(source: Source, tokenizer: Path | None, pad_vocab: bool) -> Opened:
    checkpoint = open_checkpoint(source.path, tokenizer, pad_vocab=pad_vocab)
    checkpoint = replace(checkpoint, notes=(*source.notes, *checkpoint.notes))
    if source.origin is not None and checkpoint.model_name is None:
        # As a model in the cache is called, whatever its directory is.
        checkpoint = replace(checkpoint, model_name=source.origin.repository)
    if source.stand_in_for is not None:
        name = source.stand_in_for

        def refuse() -> SlabReader:
            _refuse_weights(name)

        checkpoint = replace(checkpoint, path=Path(name), make_reader=refuse)
    return Opened(checkpoint, source.origin)


def _refuse_weights(name: str) -> NoReturn:
    raise CheckpointError("only the headers were fetched", file=name, remedy="Ask for the weights: Need.WEIGHTS.")


def _path_notes(text: str) -> tuple[str, ...]:
    """What to say of a path that could have been meant as an id."""
    meant = parse_id(text)
    if meant is None or len(text.split("/")) != 2:
        return ()
    return (f"{text} is taken as the path that exists here; hf://{text} would be the Hub's repository.",)


def _renamed(error: GptOssConvertError, path: Path, name: str) -> GptOssConvertError:
    """The error with the repository's name where it names the stand-in."""
    said = error.fields()
    fields = {
        key: said.get(key, "").replace(str(path), name) or None for key in ("file", "expected", "found", "remedy")
    }
    return type(error)(error.problem, tensor=error.tensor, key=error.key, **fields)
