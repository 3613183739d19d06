"""Canonical correlation over offsets (Figs. 4 and 8): in sample, held out, by the step number alone, and two nulls."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.experiments.correlation.held_out_cca import KINDS, METRICS
from probe.results import PAPER_MODEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LINE_STYLES = {
    "in_sample": ("fitting samples", "#08519c", "-", "o"),
    "held_out": ("held-out samples", "#e6550d", "-", "s"),
    "step_number": ("held out: the step number alone", "#31a354", "--", "D"),
    "within_step": ("held out: hidden states within a step", "#756bb1", "-.", "P"),
    "null_shifted": ("null: another sample, shifted", "0.35", ":", "v"),
    "null_step": ("null: another sample, same step", "0.6", "--", "^"),
}
"""Label, colour, line and marker of each kind."""
TITLES = {"component_1": "component 1", "top_10_mean": "mean of the top 10", "top_50_mean": "mean of the top 50"}


def plot_correlations(results: dict[str, Any]) -> "Figure":
    """One panel for each metric, correlation against k; bands are 95 % intervals, of a null its range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.1), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axis, metric in zip(panels, METRICS, strict=True):
        for kind in KINDS:
            _line(axis, results["offsets"], kind, metric)
        axis.set_title(TITLES[metric] + _fewer(results["offsets"], metric), fontsize=10)
        axis.set_xlabel("offset k (steps)")
        axis.locator_params(axis="x", integer=True)
        axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        axis.grid(axis="y", color="0.92")
    _paper_line(panels[0], results["paper_component_1"], len(results["offsets"]))
    panels[0].set_ylim(-0.05, 1.05)
    panels[0].set_ylabel("canonical correlation")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // 2), fontsize=9, frameon=False)
    return figure


def _line(axis: "Axes", offsets: list[dict[str, Any]], kind: str, metric: str) -> None:
    cells = [(offset["k"], offset[kind][metric]) for offset in offsets if offset.get(kind)]
    if not cells:
        return
    label, colour, line, marker = LINE_STYLES[kind]
    k = [number for number, _ in cells]
    value, low, high = (np.array([cell[key] for _, cell in cells], dtype=float) for key in ("value", "low", "high"))
    axis.plot(k, value, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
    axis.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)


def _paper_line(axis: "Axes", paper: dict[int, float], offsets: int) -> None:
    shown = [k for k in paper if k < offsets]
    values, label = [paper[k] for k in shown], f"paper, {PAPER_MODEL}"
    axis.plot(shown, values, color="black", linestyle="-.", linewidth=1, label=label)


def _fewer(offsets: list[dict[str, Any]], metric: str) -> str:
    """The number of components that a mean is over, where there are fewer than its name says."""
    wanted = {"component_1": 1, "top_10_mean": 10, "top_50_mean": 50}[metric]
    counts = [min(offset["components"], wanted) for offset in offsets]
    if min(counts) >= wanted:
        return ""
    return f" (there are {min(counts)} to {max(counts)})" if min(counts) < max(counts) else f" (there are {counts[0]})"
