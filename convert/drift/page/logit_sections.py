"""What the page says of `--depth logits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..layer_report import error_text, share
from ..logit_report import DELTA_EDGES, bin_names, histogram, logit_tables
from .axes import Axis, Tick, log_axis, number_axis
from .charts import Series, bars, dot, figure, legend, lines
from .markup import Markup, element
from .parts import Tile, lead, section
from .tables import from_terminal, table

if TYPE_CHECKING:
    from ..logits import LogitComparison
    from ..prompts import Prompts

MOST_POINTS = 800
"""Most points of a line of KLs. Where there are more positions, a point is the largest KL of some in a row."""

_WORST_SHOWN = 10
_MOST_PROMPTS = 200
_MOST_BOUNDARIES = 40
_CONTEXT = 6

# A position whose KL is below this, also by rounding below 0, is drawn there.
_LOWEST_KL = 1e-12


def logit_tiles(found: LogitComparison) -> list[Tile]:
    b, noise = found.b, found.noise
    times = found.times_noise
    return [
        ("mean KL, nats", error_text(b.mean_kl), "" if noise is None else f"A in bf16: {error_text(noise.mean_kl)}"),
        ("times the noise", "" if times is None else f"{times:,.3g}", "") if times is not None else _largest(found),
        ("99th percentile of KL", error_text(b.p99_kl), f"largest: {error_text(b.max_kl)}"),
        ("same likeliest token", share(b.top1), "" if noise is None else f"A in bf16: {share(noise.top1)}"),
        ("overlap of the 5 likeliest", share(b.top5), "" if noise is None else f"A in bf16: {share(noise.top5)}"),
    ]


def _largest(found: LogitComparison) -> Tile:
    return "median KL, nats", error_text(found.b.median_kl), ""


def logit_sections(found: LogitComparison) -> list[Markup]:
    figures, by_prompt, _ = logit_tables(found)
    formula = element("code", "KL(P_A ‖ P_B) = Σ P_A (log P_A - log P_B)")
    return [
        section(
            "Predictions",
            lead(formula, f", in nats, over {found.n_rows:,} tokens of the vocabulary, at each position."),
            from_terminal("Predictions", figures),
        ),
        section(
            "By prompt",
            lead(f"{len(found.b.kl):,} tokens in {len(found.prompts.prompts):,} prompts: {found.prompts.source}."),
            from_terminal("Figures by prompt", by_prompt, most=_MOST_PROMPTS, is_numbered=True),
        ),
        section("KL along the positions", _kl(found)),
        section("Where predictions differ most", *_worst(found)),
        section("The next token", *_moved(found)),
    ]


def _kl(found: LogitComparison) -> Markup:
    prompts, kl = found.prompts, found.b.kl
    stride = -(-len(kl) // MOST_POINTS)
    noise = None if found.noise is None else found.noise.kl
    y = _kl_axis([kl] if noise is None else [kl, noise])
    x = _positions(prompts)
    series = [
        Series("B", "line-b thin", along(kl, prompts, stride)),
        Series("B, mean of the prompt", "line-b mean", _means(kl, prompts)),
    ]
    if noise is not None:
        name = "A in bf16 (noise)"
        series.insert(0, Series(name, "line-noise thin", along(noise, prompts, stride)))
        series.append(Series(f"{name}, mean of the prompt", "line-noise mean", _means(noise, prompts)))
    worst = worst_positions(kl)
    marks = [
        dot(x.percent(at), y.percent(float(kl[at])), "worst", f"{prompts.at(at)}: {error_text(float(kl[at]))} nats", 3)
        for at in worst
    ]
    every = f"Each point is the largest of {stride} positions in a row; the figures are of all." if stride > 1 else ""
    lowest = "What is below the axis is drawn at its foot." if float(kl.min()) < y.low else ""
    return figure(
        "KL along the positions",
        f"{len(kl):,} positions in {len(prompts.prompts)} prompts; the largest KL is {error_text(found.b.max_kl)} nats "
        f"at {prompts.at(worst[0])}, the median {error_text(found.b.median_kl)}.",
        [_boundaries(prompts, x), lines(series, x, y, dots=False), marks],
        axes=(x, y),
        labels=("prompt, and the positions in it", "KL in nats, logarithmic"),
        legend=legend([(one.style, one.name) for one in series]),
        caption=" ".join(
            filter(
                None, ["Prompts have the numbers of the table above. Dots: the largest, listed below.", every, lowest]
            )
        ),
    )


def along(values: NDArray[np.float64], prompts: Prompts, stride: int) -> tuple[tuple[float, float | None], ...]:
    """A point for every `stride` positions of a prompt, the largest of theirs; a gap after each prompt."""
    points: list[tuple[float, float | None]] = []
    for begin, end in prompts.spans:
        for start in range(begin, end, stride):
            stop = min(start + stride, end)
            points.append(((start + stop - 1) / 2, max(float(values[start:stop].max()), _LOWEST_KL)))
        points.append((float(end), None))
    return tuple(points)


def _means(values: NDArray[np.float64], prompts: Prompts) -> tuple[tuple[float, float | None], ...]:
    """A level line for each prompt."""
    points: list[tuple[float, float | None]] = []
    for begin, end in prompts.spans:
        mean = max(float(values[begin:end].mean()), _LOWEST_KL)
        points += [(begin - 0.5, mean), (end - 0.5, mean), (float(end), None)]
    return tuple(points)


def _kl_axis(columns: list[NDArray[np.float64]]) -> Axis:
    """Decades that hold all but the smallest hundredth of what is above zero."""
    values = np.concatenate(columns)
    values = values[values > _LOWEST_KL]
    return log_axis([float(np.percentile(values, 1)), float(values.max())] if len(values) else [])


def _positions(prompts: Prompts) -> Axis:
    """All positions, with each prompt's number in its middle."""
    spans = prompts.spans
    step = -(-len(spans) // 12)
    ticks = [
        Tick((begin + end - 1) / 2, str(number), is_minor=len(spans) > 6 and number // step % 2 == 0)
        for number, (begin, end) in enumerate(spans, start=1)
        if step == 1 or number % step == 0
    ]
    return Axis(-0.5, spans[-1][1] - 0.5, tuple(ticks))


def _boundaries(prompts: Prompts, x: Axis) -> list[Markup]:
    ends = [end for _, end in prompts.spans[:-1]]
    if len(ends) > _MOST_BOUNDARIES:
        return []
    places = [f"{x.percent(end - 0.5):g}%" for end in ends]
    return [element("line", x1=place, x2=place, y1="0%", y2="100%", class_="boundary") for place in places]


def worst_positions(kl: NDArray[np.float64]) -> list[int]:
    """The positions of the largest KLs, the largest first; of equals the first."""
    return [int(place) for place in np.argsort(-kl, kind="stable")[:_WORST_SHOWN]]


def _worst(found: LogitComparison) -> list[Markup]:
    columns = ("prompt", "token", "text up to it", "next", "KL", "A's likeliest, in A", "in B", "Δ log p of next")
    rows = [_position(found, place) for place in worst_positions(found.b.kl)]
    text = (
        "The positions of the largest KLs. Probabilities are those of the token that A finds likeliest; Δ is what B's "
        "log-probability of the token that really comes next is above A's, in nats."
    )
    left = ("prompt", "text up to it", "next")
    return [lead(text), table("Where predictions differ most", columns, rows, left=left)]


def _position(found: LogitComparison, position: int) -> list[str | Markup]:
    prompt, place = found.prompts.place(position)
    before = "".join(prompt.pieces[max(0, place - _CONTEXT + 1) : place + 1])
    following = prompt.pieces[place + 1] if place + 1 < len(prompt.pieces) else ""
    delta = float(found.b.delta_next[position])
    return [
        prompt.name,
        str(place),
        _spelled(before),
        _spelled(following),
        error_text(float(found.b.kl[position])),
        f"{found.a.probability_of_top[position]:.4f}",
        f"{found.b.predictions.probability_of_top[position]:.4f}",
        "" if np.isnan(delta) else f"{delta:+.3g}",
    ]


def _spelled(text: str) -> Markup | str:
    """Text with the ends of its lines shown."""
    return element("code", text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")) if text else ""


def _moved(found: LogitComparison) -> list[Markup]:
    pairs = [("fill-b", "B", histogram(found.b.delta_next))]
    if found.noise is not None:
        pairs.append(("fill-noise", "A in bf16 (noise)", histogram(found.noise.delta_next)))
    n_known = max(1, sum(pairs[0][2]))
    shares = [[100 * count / n_known for count in counts] for _, _, counts in pairs]
    y = number_axis(0, max(max(one) for one in shares), suffix=" %", most=4)
    names = bin_names()
    titles = [
        "\n".join([name, *(f"{who}: {counts[place]:,} of {n_known:,}" for _, who, counts in pairs)])
        for place, name in enumerate(names)
    ]
    groups = [(style, values) for (style, _, _), values in zip(pairs, shares, strict=True)]
    x, drawn = bars(names, groups, y, titles)
    middle = len(DELTA_EDGES) // 2
    edges = [
        Tick(place + 0.5, f"{edge:g}", is_minor=place not in (0, 2, 4, 9, 11, 13))
        for place, edge in enumerate(DELTA_EDGES)
        if place not in (middle - 1, middle)
    ]
    counts = pairs[0][2]
    return [
        lead("By how much B's log-probability of the token that really comes next is above A's, in nats."),
        figure(
            "Change of the next token's log-probability",
            f"{n_known:,} positions; {counts[middle]:,} moved by less than {DELTA_EDGES[middle]:g} nats, "
            f"{sum(counts[:middle]):,} further down and {sum(counts[middle + 1 :]):,} further up.",
            drawn,
            axes=(Axis(x.low, x.high, (*edges, Tick(float(middle), "0"))), y),
            labels=("Δ log-probability, nats: bins of unequal width", "share of positions"),
            legend=legend((style, who) for style, who, _ in pairs),
        ),
        element(
            "p",
            f"Perplexity: {found.a.perplexity:,.4g} (A), {found.b.predictions.perplexity:,.4g} (B). It says least: "
            "tokens that got likelier hide those that got less likely.",
            class_="small",
        ),
    ]
