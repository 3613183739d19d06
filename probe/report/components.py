"""Components of an exhibit: tables and plots in plain values, which the page's template and script render."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probe.metrics import Estimate


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: The value.
        note: The interval, in small print beside it.
        strong: Whether it is emphasised.

    """

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class TableView:
    """A table; its first column names the rows."""

    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """An interactive plot.

    Attributes:
        title: Its caption.
        spec: `data` and `layout` for plotly.js; a colour `var:--name` is the page's CSS variable of that name.
        alt: Description for screen readers.
        group: The heading above a group of small plots; empty for a single one.

    """

    title: str
    spec: dict[str, Any]
    alt: str
    group: str = ""


@dataclass(frozen=True)
class View:
    """Tables and plots of one result."""

    tables: list[TableView] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


EMPTY = Cell("–")


def measured(metric: Mapping[str, Any] | None, digits: int = 3, strong: bool = False) -> Cell:
    """Cell of a metric `{"value", "low", "high"}` with its interval; `EMPTY` where it has no value.

    >>> measured({"value": 0.81234, "low": 0.79, "high": 0.83}).text
    '0.812'

    """
    if metric is None or metric.get("value") is None:
        return EMPTY
    estimate = Estimate.of(metric)
    return Cell(estimate.value_text(digits), estimate.interval_text(digits), strong)


def spread(values: Sequence[float], digits: int = 4) -> Cell:
    """Cell of the range of published values."""
    return Cell(f"{min(values):.{digits}f} – {max(values):.{digits}f}")


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis of plotly.js."""
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **options}


def layout(x: dict[str, Any], y: dict[str, Any], height: int = 390, **options: Any) -> dict[str, Any]:
    """A layout of plotly.js; the page adds fonts and colours."""
    legend = {"orientation": "h", "y": -0.26, "yanchor": "top"}
    margin = {"l": 60, "r": 16, "t": 16, "b": 50}
    return {"xaxis": x, "yaxis": y, "height": height, "margin": margin, "legend": legend, **options}


def without_markup(spec: Any) -> Any:
    """The part of a plot's data and layout that plotly.js shows as it is: it would read `<a href=…>` as a link.

    Hover templates are this project's own; the values in them are escaped.

    >>> without_markup({"name": "<b>", "hovertemplate": "<b>%{y}</b>", "x": ["a & b", 1]})
    {'name': '&lt;b&gt;', 'hovertemplate': '<b>%{y}</b>', 'x': ['a &amp; b', 1]}

    """
    if isinstance(spec, dict):
        return {key: one if key == "hovertemplate" else without_markup(one) for key, one in spec.items()}
    if isinstance(spec, list | tuple):
        return [without_markup(one) for one in spec]
    return html.escape(spec, quote=False) if isinstance(spec, str) else spec


LINE_STYLES: tuple[tuple[str, str, str], ...] = (
    ("--c1", "solid", "circle"),
    ("--c2", "dash", "square"),
    ("--c3", "dot", "triangle-up"),
    ("--c4", "dashdot", "diamond"),
    ("--c5", "longdash", "x"),
    ("--c6", "longdashdot", "star"),
)
"""Colour, dash and marker of lines: no line is identified by its colour alone."""


def line(name: str, x: Sequence[Any], metrics: Sequence[Mapping[str, Any]], style: int) -> list[dict[str, Any]]:
    """Traces of plotly.js for a line with markers, after the band of its intervals where there are any.

    Args:
        name: In the legend.
        x: One value for each metric.
        metrics: `value`, and `low` and `high` where there is an interval.
        style: Index into `LINE_STYLES`; it wraps around.

    """
    colour, dash, symbol = LINE_STYLES[style % len(LINE_STYLES)]
    bounded = [(at, metric) for at, metric in zip(x, metrics, strict=True) if metric.get("low") is not None]
    values = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": [metric["value"] for metric in metrics],
        "customdata": [Estimate.of(metric).interval_text(3) for metric in metrics],
        "line": {"color": f"var:{colour}", "dash": dash, "width": 2},
        "marker": {"color": f"var:{colour}", "symbol": symbol, "size": 7},
        "hovertemplate": "%{x}: <b>%{y:.3f}</b> %{customdata}",
        "legendgroup": name,
    }
    return [_band(name, colour, bounded), values] if bounded else [values]


def _band(name: str, colour: str, bounded: Sequence[tuple[Any, Mapping[str, Any]]]) -> dict[str, Any]:
    """A closed polygon: along the upper bounds, and back along the lower ones."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [at for at, _ in bounded] + [at for at, _ in reversed(bounded)],
        "y": [metric["high"] for _, metric in bounded] + [metric["low"] for _, metric in reversed(bounded)],
        "fill": "toself",
        "fillcolor": f"var:{colour}:0.16",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": name,
    }
