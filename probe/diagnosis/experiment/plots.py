"""Plots of a diagnosis: the grid of length and depth with cells divided by cause, and rescues by cause."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.diagnosis.causes import CAUSES
from probe.diagnosis.trial import INTERVENTIONS
from probe.results import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: dict[str, str] = {"solved": "solved", **{str(cause): label for cause, label in CAUSES.items()}}
MARKS = dict(zip(KINDS, "+FTEANKCU", strict=True))
"""Letter of each kind of answer within a cell."""
COLORS = dict(
    zip(
        KINDS,
        ("#e8f3e8", "#f6d55c", "#c9c9c9", "#8d6e63", "#20639b", "#3caea3", "#9b59b6", "#ed553b", "#ffffff"),
        strict=True,
    )
)
HATCHES = dict(zip(KINDS, ("", "..", "--", "++", "//", "\\\\", "xx", "oo", ""), strict=True))
LEGEND: dict[str, Any] = {"loc": "outside right upper", "fontsize": 7}
MOST_CELLS = 12
"""Most distinct values of an axis that are cells; more are put into as many equal ranges as `RANGES`."""
RANGES = 6


def plot_grid(trials: Sequence[Trial], title: str) -> "Figure":
    """Each cell of context length and depth as a bar of its answers, solved ones first, then by cause.

    Args:
        trials: With reported causes, lengths and depths.
        title: Of the plot.

    """
    from matplotlib.figure import Figure

    lengths, columns = _axis([float(trial["length"]) for trial in trials])
    depths, rows = _axis([float(trial["cell_depth"]) for trial in trials])
    figure = Figure(figsize=(2.8 + 1.1 * len(lengths), 1.6 + 0.62 * len(depths)), layout="constrained")
    axes = figure.subplots()
    for cell in sorted(set(zip(columns, rows, strict=True))):
        inside = zip(trials, zip(columns, rows, strict=True), strict=True)
        _plot_cell(axes, cell, Counter(trial["reported"] or "solved" for trial, place in inside if place == cell))
    axes.set_xticks(np.arange(len(lengths)) + 0.5, lengths)
    axes.set_yticks(np.arange(len(depths)) + 0.5, depths)
    axes.set(xlim=(0, len(lengths)), ylim=(len(depths), 0), xlabel="context length (tokens)", ylabel="depth (%)")
    axes.set_title(title, fontsize=9)
    figure.legend(handles=_handles({trial["reported"] or "solved" for trial in trials}), **LEGEND)
    return figure


def _axis(values: Sequence[float]) -> tuple[list[str], list[int]]:
    """Labels of an axis, and the cell of each value."""
    distinct = sorted(set(values))
    if len(distinct) <= MOST_CELLS:
        return [f"{value:g}" for value in distinct], [distinct.index(value) for value in values]
    edges = np.linspace(distinct[0], distinct[-1], RANGES + 1)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, RANGES - 1)
    return [f"{low:.0f} to {high:.0f}" for low, high in pairwise(edges)], places.tolist()


def _plot_cell(axes: "Axes", cell: tuple[int, int], counts: Counter[str]) -> None:
    """One bar, a piece a cause; pieces have a letter where they are wide enough."""
    left, (column, row) = 0.04, cell
    for kind in KINDS:
        width = 0.92 * counts[kind] / counts.total()
        if not width:
            continue
        axes.barh(row + 0.5, width, left=column + left, height=0.84, **_style(kind))
        if width > 0.1:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
            place = (column + left + width / 2, row + 0.5)
            axes.text(*place, MARKS[kind], ha="center", va="center", fontsize=7, bbox=box)
        left += width


def _style(kind: str) -> dict[str, Any]:
    return {"facecolor": COLORS[kind], "hatch": HATCHES[kind], "edgecolor": "#444444", "linewidth": 0.4}


def _handles(kinds: Collection[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(**_style(kind), label=f"{MARKS[kind]}  {label}") for kind, label in KINDS.items() if kind in kinds]


def plot_rescues(results: dict[str, Any]) -> "Figure":
    """Share of failures that each intervention rescues, by reported cause, with intervals.

    Args:
        results: Of the experiment.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    reported = results["reported"]["interventions"]
    axes, width = figure.subplots(), 0.8 / len(reported)
    for number, (cause, outcomes) in enumerate(reported.items()):
        found = [outcomes[name]["rescued"] for name in INTERVENTIONS]
        for place, record in enumerate(found):
            if not record["n"]:
                continue
            bars = [[max(0.0, record["value"] - record["low"])], [max(0.0, record["high"] - record["value"])]]
            left = place - 0.4 + width * (number + 0.5)
            axes.bar(left, record["value"], width, yerr=bars, capsize=2, **_style(cause))
    axes.set_xticks(range(len(INTERVENTIONS)), [fill(name, 12) for name in INTERVENTIONS.values()])
    axes.set(ylabel="right token is the model's choice", ylim=(0, 1))
    figure.legend(handles=_handles(reported), **LEGEND)
    return figure
