"""Two checkpoints compared to any depth: `gptoss_convert.drift`, and what the command is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, overload

from rich.table import Table

from ...formats.errors import UsageError
from ..checkpoint import Checkpoint
from ..config_differences import differing_keys
from ..progress import Progress
from ..same_model import require_same_model
from .fail_over import DEPTHS, LAYERS, TENSORS
from .mixups import find_mixups
from .report import describe_tensors, figures, tensor_tables
from .results import TensorComparison
from .summary import summarize
from .tensors import compare_tensors


class Compared(Protocol):
    """What a comparison of any depth can say."""

    def figures(self) -> dict[str, float]:
        """What `--fail-over` takes, by its name."""

    def describe(self) -> dict[str, Any]:
        """The report as JSON data."""

    def tables(self) -> list[Table]:
        """What a terminal shows first."""

    def lines(self) -> list[str]:
        """What it says then; the last line is the answer."""


@dataclass(frozen=True)
class ComparedTensors:
    """Depth `tensors`: the figures, what happened to tensors that are mixed up, and what the difference is."""

    found: TensorComparison
    mixups: Mapping[str, str]
    sentence: str

    def figures(self) -> dict[str, float]:
        return figures(self.found)

    def describe(self) -> dict[str, Any]:
        return {"sentence": self.sentence, "mixups": dict(self.mixups)} | describe_tensors(self.found)

    def tables(self) -> list[Table]:
        return tensor_tables(self.found)

    def lines(self) -> list[str]:
        return [self.sentence]


@dataclass(frozen=True)
class Running:
    """How the depths that run the models do it.

    Attributes:
        prompts: texts to run instead of our own.
        n_tokens: most tokens of each prompt; the usual number if None.
        noise: whether A is computed in bf16 too.
        consumer, consumer_a: the programs whose arithmetic B and A are computed with; their configs' if None.
    """

    prompts: Path | None = None
    n_tokens: int | None = None
    noise: bool = True
    consumer: str | None = None
    consumer_a: str | None = None


@overload
def drift(
    a: Checkpoint, b: Checkpoint, *, depth: Literal["tensors"] = "tensors", progress: Progress | None = None
) -> ComparedTensors: ...


@overload
def drift(
    a: Checkpoint, b: Checkpoint, *, depth: str, running: Running | None = None, progress: Progress | None = None
) -> Compared: ...


def drift(
    a: Checkpoint,
    b: Checkpoint,
    *,
    depth: str = TENSORS,
    running: Running | None = None,
    progress: Progress | None = None,
) -> Compared:
    """How far `b` is from `a`.

    Args:
        a: what is right.
        b: what is compared with it.
        depth: "tensors" compares weights; "layers" and "logits" run both models.
        running: how they are run.
        progress: told of every slab or layer.

    Raises:
        UsageError: an option that is none, two models of other shapes; the key is named.
        GptOssConvertError: a weight is not finite, a tokenizer is damaged.
        OSError: a file cannot be read.
    """
    running, progress = running or Running(), progress or Progress()
    require_options(depth, running)
    require_same_model(a, b)
    if depth != TENSORS:
        return _run_models(a, b, depth, running, progress)
    found = compare_tensors(a, b, progress)
    mixups = find_mixups(found, a, b)
    return ComparedTensors(found, mixups, summarize(found, a, b, config_differences(a, b), mixups))


def require_options(depth: str, running: Running) -> None:
    """Raises UsageError for a depth that is none, or options that mean nothing at it."""
    if depth not in DEPTHS:
        raise UsageError(
            "the depth is unknown",
            expected=f"--depth {', '.join(DEPTHS)}",
            found=repr(depth),
            remedy="Choose one of these.",
        )
    if depth == TENSORS and running != Running():
        raise UsageError(
            "--depth tensors runs no model, so there is nothing to say of prompts or arithmetic",
            expected="--depth layers or --depth logits with these options",
            remedy="Add --depth layers or --depth logits.",
        )


def config_differences(a: Checkpoint, b: Checkpoint) -> list[tuple[str, Any, Any]]:
    """Keys and both values, but for the vocabulary: where it differs, a layout cannot hold all of it."""
    return [pair for pair in differing_keys(a.config, b.config) if pair[0] != "vocab_size"]


def _run_models(a: Checkpoint, b: Checkpoint, depth: str, running: Running, progress: Progress) -> Compared:
    """The comparison of what the models compute."""
    from .layers import compare_layers
    from .logits import compare_logits
    from .prompts import DEFAULT_TOKENS, make_prompts

    prompts = make_prompts(a, b, file=running.prompts, n_tokens=running.n_tokens or DEFAULT_TOKENS)
    compare = compare_layers if depth == LAYERS else compare_logits
    return compare(
        a,
        b,
        prompts=prompts,
        noise=running.noise,
        consumer=running.consumer,
        consumer_a=running.consumer_a,
        progress=progress,
    )
