"""`drift --html`: the outcome as one page that needs nothing else: no network, no script, no font of its own.

The same outcome gives the same bytes: there is no date in it, and no time that it took.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from ... import __version__
from ..checkpoint import Checkpoint
from ..render import count, size
from .fail_over import LAYERS, LOGITS, TENSORS
from .layer_report import verdict as layers_verdict
from .logit_report import verdict as logits_verdict
from .page.layer_sections import layer_sections, layer_tiles
from .page.logit_sections import logit_sections, logit_tiles
from .page.markup import Markup, element, joined, unbroken
from .page.parts import Tile, lead, notes, section, tiles
from .page.style import STYLE_SHEET
from .page.tables import table
from .page.tensor_sections import tensor_sections, tensor_tiles

if TYPE_CHECKING:
    from .command import Outcome
    from .compare import Compared, ComparedTensors
    from .layers import LayerComparison
    from .logits import LogitComparison

_DEPTHS = {TENSORS: "their weights", LAYERS: "what each layer computes", LOGITS: "what they predict"}


def render_html(outcome: Outcome, version: str = __version__) -> str:
    """The page, as text to be written in UTF-8."""
    depth = outcome.report["depth"]
    sentence, shown, body = _story(depth, outcome.compared)
    names = [_name(checkpoint) for checkpoint in outcome.checkpoints]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"gptoss-convert {version}"),
        element("title", f"Drift: {names[0]} and {names[1]}"),
        element("style", Markup(STYLE_SHEET)),
    )
    main = element(
        "main",
        element(
            "header",
            element("p", f"Drift of B from A: {_DEPTHS[depth]}", class_="kind"),
            element("h1", unbroken(sentence)),
            _verdict(outcome.report["fail_over"]),
            tiles(shown),
        ),
        section("What was compared", _checkpoints(outcome)),
        body,
        _limits(outcome.report["fail_over"]),
        _notes(outcome),
        element("footer", f"Made by gptoss-convert {version}, drift --depth {depth}."),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', main), lang='en')}\n"


def _name(checkpoint: Checkpoint) -> str:
    return checkpoint.path.name or str(checkpoint.path)


def _story(depth: str, compared: Compared) -> tuple[str, list[Tile], list[Markup]]:
    """The sentence on top, the figures below it, and the sections of the depth."""
    if depth == TENSORS:
        tensors = cast("ComparedTensors", compared)
        return tensors.sentence, tensor_tiles(tensors.found), tensor_sections(tensors.found, tensors.mixups)
    if depth == LAYERS:
        layers = cast("LayerComparison", compared)
        return _capital(layers_verdict(layers)), layer_tiles(layers), layer_sections(layers)
    logits = cast("LogitComparison", compared)
    sections = logit_sections(logits) + layer_sections(logits.layers)
    return _capital(logits_verdict(logits)), logit_tiles(logits), sections


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def _verdict(limits: list[dict[str, Any]]) -> Markup | None:
    """Whether the limits held, in words and with a sign as well as in colour."""
    if not limits:
        return None
    over = [one for one in limits if one["passed"]]
    if not over:
        return element("p", element("b", "✓ Within the limits"), f"all {len(limits)} held", class_="verdict good")
    said = "; ".join(
        f"{one['name']} is {_figure(one['figure'])}, {one['fails']} {_figure(one['limit'])}" for one in over
    )
    return element("p", element("b", "✗ Over the limit"), element("span", said), class_="verdict bad")


def _figure(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.6g}"


def _limits(limits: list[dict[str, Any]]) -> Markup:
    if not limits:
        return section("Limits", lead("None were set; --fail-over sets them."))
    rows = [
        (
            one["name"],
            _figure(one["figure"]),
            f"fails {one['fails']} {_figure(one['limit'])}",
            "✗ over" if one["passed"] else "✓ held",
        )
        for one in limits
    ]
    return section("Limits", table("Limits", ("figure", "found", "limit", "verdict"), rows, left=("figure",)))


def _checkpoints(outcome: Outcome) -> Markup:
    a, b = outcome.checkpoints
    rows = [(name, *pair) for name, pair in _facts(a, b) if any(pair)]
    return table("What was compared", ("", "A", "B"), rows, left=("", "A", "B"), style="pair")


def _facts(a: Checkpoint, b: Checkpoint) -> Iterable[tuple[str, tuple[str, str]]]:
    """What it is called, and what it is in A and in B."""
    yield "path", (str(a.path), str(b.path))
    yield "layout", (a.layout, b.layout)
    yield "model name", (a.model_name or "not given", b.model_name or "not given")
    yield "tensor data", (_bytes(a), _bytes(b))
    yield "parameters", (_parameters(a), _parameters(b))
    yield "experts", (_encodings(a, {"experts"}), _encodings(b, {"experts"}))
    dense = {"attention", "embedding", "unembedding", "router"}
    yield "other matrices", (_encodings(a, dense), _encodings(b, dense))
    yield "shape", (_shape(a), _shape(b))


def _bytes(one: Checkpoint) -> str:
    files = f"{len(one.files):,} file{'' if len(one.files) == 1 else 's'}"
    return f"{size(one.n_bytes)} ({one.n_bytes:,} bytes) in {files}"


def _parameters(one: Checkpoint) -> str:
    bits = 8 * one.n_bytes / one.n_parameters if one.n_parameters else 0.0
    return f"{count(one.n_parameters)}, {bits:.2f} bits per weight"


def _encodings(one: Checkpoint, roles: set[str]) -> str:
    names = {stored.encoding.name for stored in one.tensors.values() if stored.tensor.role in roles}
    return ", ".join(sorted(names))


def _shape(one: Checkpoint) -> str:
    config = one.config
    return (
        f"{config.num_hidden_layers} layers of {config.num_local_experts} experts, {config.num_experts_per_tok} "
        f"active; hidden {config.hidden_size}, vocabulary {config.vocab_size:,}"
    )


def _notes(outcome: Outcome) -> Markup | None:
    report = outcome.report
    found = [f"{side.upper()}: {note}" for side in ("a", "b") for note in report[side]["notes"]]
    found += getattr(outcome.compared, "notes", ())
    differences = []
    for what, rows in (("Config", report["config_differences"]), ("Tokenizer", report["tokenizer_differences"])):
        cells = [(one["key"], str(one["a"]), str(one["b"])) for one in rows]
        if cells:
            title = f"{what} differences"
            differences.append(
                table(title, (f"{what.lower()} key", "A", "B"), cells, left=(f"{what.lower()} key", "A", "B"))
            )
    if not found and not differences:
        return None
    return section("Notes", joined(notes(found), differences))
