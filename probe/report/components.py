"""What an exhibit shows: tables and figures in plain values, which the page's template and script draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A figure of a table.

    Attributes:
        text: The value.
        note: Beside it, smaller: the interval.
        strong: What the table is about.

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
class Figure:
    """An interactive figure.

    Attributes:
        title: Above it.
        spec: `data` and `layout` as plotly.js takes them; a colour `var:--name` is the page's colour of that name.
        alt: What it shows, in words.
        group: The heading above small figures that belong together; empty for one that stands alone.

    """

    title: str
    spec: dict[str, Any]
    alt: str
    group: str = ""


@dataclass(frozen=True)
class View:
    """All of one result."""

    tables: list[TableView] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


EMPTY = Cell("–")


def measured(figure: Mapping[str, Any] | None, digits: int = 3, strong: bool = False) -> Cell:
    """A `{"value", "low", "high"}` of a result, with its interval."""
    if figure is None or figure.get("value") is None:
        return EMPTY
    low, high = figure.get("low"), figure.get("high")
    note = "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"
    return Cell(f"{figure['value']:.{digits}f}", note, strong)


def spread(values: Sequence[float], digits: int = 4) -> Cell:
    """The least and the largest of published values."""
    return Cell(f"{min(values):.{digits}f} – {max(values):.{digits}f}")


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis of plotly.js."""
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **options}


def layout(x: dict[str, Any], y: dict[str, Any], height: int = 390, **options: Any) -> dict[str, Any]:
    """A layout of plotly.js; the page adds fonts and colours."""
    legend = {"orientation": "h", "y": -0.26, "yanchor": "top"}
    margin = {"l": 60, "r": 16, "t": 16, "b": 50}
    return {"xaxis": x, "yaxis": y, "height": height, "margin": margin, "legend": legend, **options}


LINE_STYLES: tuple[tuple[str, str, str], ...] = (
    ("--c1", "solid", "circle"),
    ("--c2", "dash", "square"),
    ("--c3", "dot", "triangle-up"),
    ("--c4", "dashdot", "diamond"),
    ("--c5", "longdash", "x"),
    ("--c6", "longdashdot", "star"),
)
"""Colour, dash and marker of a line: no line is known by its colour alone."""


def line(name: str, x: Sequence[Any], figures: Sequence[Mapping[str, Any]], look: int) -> list[dict[str, Any]]:
    """A line with markers and the band of its intervals."""
    colour, dash, symbol = LINE_STYLES[look % len(LINE_STYLES)]
    bounds = [figure if figure.get("low") is not None else {"low": None, "high": None} for figure in figures]
    shown = [f"[{bound['low']:.3f}, {bound['high']:.3f}]" if bound["low"] is not None else "" for bound in bounds]
    whole = [(place, bound) for place, bound in zip(x, bounds, strict=True) if bound["low"] is not None]
    drawn = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": [figure["value"] for figure in figures],
        "customdata": shown,
        "line": {"color": f"var:{colour}", "dash": dash, "width": 2},
        "marker": {"color": f"var:{colour}", "symbol": symbol, "size": 7},
        "hovertemplate": "%{x}: <b>%{y:.3f}</b> %{customdata}",
        "legendgroup": name,
    }
    if not whole:
        return [drawn]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [place for place, _ in whole] + [place for place, _ in reversed(whole)],
        "y": [bound["high"] for _, bound in whole] + [bound["low"] for _, bound in reversed(whole)],
        "fill": "toself",
        "fillcolor": f"var:{colour}:0.16",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": name,
    }
    return [band, drawn]
