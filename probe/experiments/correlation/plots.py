"""Correlations over offsets (Fig. 4 / 8): in sample, held out, and what chance and the step's number give."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LINE_STYLES = {
    "in_sample": ("fitting samples", "#08519c", "-", "o"),
    "held_out": ("held-out samples", "#e6550d", "-", "s"),
    "null_shifted": ("null: another sample, shifted", "0.35", ":", "v"),
    "null_step": ("null: another sample, same step", "0.6", "--", "^"),
}
TITLES = {"component_1": "component 1", "top_10_mean": "mean of the top 10", "top_50_mean": "mean of the top 50"}


def plot_correlations(results: dict[str, Any], kinds: Sequence[str], figures: Sequence[str]) -> "Figure":
    """One panel for each figure, correlation against k; bands are intervals, of a null its range over draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.1), layout="constrained")
    panels = figure.subplots(1, len(figures), sharey=True)
    for axis, name in zip(panels, figures, strict=True):
        for kind in kinds:
            _line(axis, results["offsets"], kind, name)
        axis.set_title(TITLES[name] + _fewer(results["offsets"], name), fontsize=10)
        axis.set_xlabel("offset k, steps")
        axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        axis.grid(axis="y", color="0.92")
    paper = results["paper_component_1"]
    shown = [k for k in paper if k < len(results["offsets"])]
    panels[0].plot(
        shown, [paper[k] for k in shown], color="black", linestyle="-.", linewidth=1, label="paper, llama3.1-8b"
    )
    panels[0].set_ylim(-0.05, 1.05)
    panels[0].set_ylabel("canonical correlation")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    return figure


def _line(axis: "Axes", offsets: list[dict[str, Any]], kind: str, name: str) -> None:
    cells = [(offset["k"], offset[kind][name]) for offset in offsets if offset.get(kind)]
    if not cells:
        return
    label, colour, line, marker = LINE_STYLES[kind]
    k = [number for number, _ in cells]
    value, low, high = (np.array([cell[key] for _, cell in cells], dtype=float) for key in ("value", "low", "high"))
    axis.plot(k, value, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
    axis.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)


def _fewer(offsets: list[dict[str, Any]], name: str) -> str:
    """How many components a mean really has, where there are fewer than its name says."""
    wanted = {"component_1": 1, "top_10_mean": 10, "top_50_mean": 50}[name]
    counts = [min(offset["components"], wanted) for offset in offsets]
    if min(counts) >= wanted:
        return ""
    return f" (there are {min(counts)} to {max(counts)})" if min(counts) < max(counts) else f" (there are {counts[0]})"
