"""Charts as inline SVG. Places are percentages, so that a chart takes any width and its text keeps its size.

A chart has a title and a description for those who cannot see it; what a pointer rests on tells its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .axes import Axis, category_axis
from .markup import Child, Markup, anchor, element

# Lines are drawn in a square of this many units, stretched over the chart.
_UNITS = 1000

# Above so many points a line is drawn without a dot at each.
_MOST_DOTS = 80


@dataclass(frozen=True)
class Series:
    """Values that belong together. `style` is a class of the style sheet: a colour, and whether it is dashed."""

    name: str
    style: str
    points: tuple[tuple[float, float | None], ...]


def figure(
    title: str,
    description: str,
    drawn: Child,
    *,
    axes: tuple[Axis, Axis],
    labels: tuple[str, str],
    legend: Child = None,
    caption: Child = None,
    style: str = "plot",
) -> Markup:
    """A chart with its axes. `labels`: what x and y are; `caption`: what a reader should know of it."""
    name = anchor(title)
    svg = element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        _grid(*axes),
        drawn,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )
    return element(
        "figure",
        legend,
        element("p", labels[1], class_="axis", aria_hidden="true") if labels[1] else None,
        element("div", svg, class_=style),
        element("p", labels[0], class_="axis x", aria_hidden="true") if labels[0] else None,
        element("figcaption", caption) if caption else None,
    )


def _grid(x: Axis, y: Axis) -> list[Markup]:
    drawn = []
    for tick in y.ticks:
        place = f"{100 - y.percent(tick.value):g}%"
        drawn.append(element("line", x1="0%", x2="100%", y1=place, y2=place, class_="grid"))
        drawn.append(element("text", tick.label, x="-8", y=place, dy="0.32em", text_anchor="end"))
    for tick in x.ticks:
        place = f"{x.percent(tick.value):g}%"
        style = "minor" if tick.is_minor else None
        drawn.append(element("text", tick.label, x=place, y="100%", dy="1.5em", text_anchor="middle", class_=style))
    return drawn


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """Styles and what they stand for."""
    return element("ul", [element("li", _swatch(style), name) for style, name in entries], class_="legend")


def _swatch(style: str) -> Markup:
    """A little of a line, or of what is filled."""
    is_filled = style.startswith(("fill", "cell"))
    drawn = element("rect", width="100%", height="100%", class_=style) if is_filled else _stroke(style)
    return element("svg", drawn, aria_hidden="true")


def _stroke(style: str) -> Markup:
    return element("line", x1="0%", x2="100%", y1="50%", y2="50%", class_=f"stroke {style}")


def lines(series: Sequence[Series], x: Axis, y: Axis, *, dots: bool = True) -> list[Markup]:
    """Each series as a line, broken where there is no value, with a dot at each point if they are few."""
    drawn = []
    for one in series:
        paths = "".join(_path(run, x, y) for run in _runs(one.points))
        path = element("path", d=paths, class_=f"stroke {one.style}")
        drawn.append(_stretched(path))
        if dots and len(one.points) <= _MOST_DOTS:
            drawn += [dot(x.percent(at), y.percent(value), one.style) for at, value in one.points if value is not None]
    return drawn


def dot(x: float, y: float, style: str, title: str | None = None, radius: float = 2.5) -> Markup:
    """A dot at percentages of the chart's width and height."""
    told = element("title", title) if title else None
    return element("circle", told, cx=f"{x:g}%", cy=f"{100 - y:g}%", r=radius, class_=f"dot {style}")


def _stretched(*children: Child) -> Markup:
    box = f"0 0 {_UNITS} {_UNITS}"
    return element("svg", children, x="0", y="0", width="100%", height="100%", viewBox=box, preserveAspectRatio="none")


def _runs(points: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """The parts of a line between points that have no value."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at, value))
    return [run for run in runs if run]


def _path(run: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    scale = _UNITS / 100
    places = [f"{scale * x.percent(at):.0f} {_UNITS - scale * y.percent(value):.0f}" for at, value in run]
    return f"M{'L'.join(places)}"


def columns_with_titles(titles: Sequence[str], x: Axis) -> list[Markup]:
    """An unseen column at 0, 1, 2 …, each of which tells its title to a pointer."""
    width = x.percent(x.low + 1)
    return [
        element(
            "rect",
            element("title", title),
            x=f"{x.percent(place - 0.5):g}%",
            y="0%",
            width=f"{width:g}%",
            height="100%",
            class_="touch",
        )
        for place, title in enumerate(titles)
    ]


def bars(
    labels: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]], y: Axis, titles: Sequence[str]
) -> tuple[Axis, list[Markup]]:
    """Bars of each group side by side above each label: the x axis, and the bars. A value of 0 has none."""
    x = category_axis(labels)
    share = 0.8 / len(groups)
    drawn = []
    for number, (style, values) in enumerate(groups):
        for place, value in enumerate(values):
            height = y.percent(value)
            if value > 0:
                left = x.percent(place - 0.4 + number * share)
                right = x.percent(place - 0.4 + (number + 1) * share)
                height = max(height, 0.8)
                drawn.append(
                    element(
                        "rect",
                        x=f"{left:g}%",
                        y=f"{100 - height:g}%",
                        width=f"{right - left:.4g}%",
                        height=f"{height:g}%",
                        class_=style,
                    )
                )
    return x, drawn + columns_with_titles(titles, x)
