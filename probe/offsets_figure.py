"""Figures of probes against the offset they foretell."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = {
    "probe": ("probe of the hidden state", "#08519c", "-", "o"),
    "static": ("static: each head's training mean", "0.5", "--", "^"),
    "repeat": ("the current step's heads again", "#e6550d", ":", "v"),
}
NAMES = {
    "f1": "F1",
    "auprc": "AUPRC",
    "r2_variance_weighted": "R², weighted by each head's variance",
    "top_overlap": "true top heads among the predicted",
}


def draw_offsets(results: dict[str, Any], kinds: Sequence[str], names: Sequence[str]) -> "Figure":
    """One panel for each figure; bands are 95 % intervals over samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(names), 4.1), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(panels, names, strict=True):
        for kind in kinds:
            label, colour, line, marker = LOOKS[kind]
            cells = [(offset["k"], offset[kind][name]) for offset in results["offsets"] if kind in offset]
            k = [number for number, _ in cells]
            value, low, high = (np.array([cell[key] for _, cell in cells]) for key in ("value", "low", "high"))
            axis.plot(k, value, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
            axis.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("offset k, steps")
        axis.set_ylabel(NAMES[name])
        axis.set_ylim(top=1.02)
        axis.grid(axis="y", color="0.92")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    return figure
