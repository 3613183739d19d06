"""Horizontal bars or dots with their 95 % intervals, one for each name."""

from collections.abc import Mapping
from typing import Any

from probe.metrics import Estimate


def horizontal(estimates: Mapping[str, Mapping[str, Any]], colour: str) -> dict[str, Any]:
    """The part of a plotly.js trace that bars and dots share.

    Args:
        estimates: `{"value", "low", "high", "n"}` by name, the first on top of a reversed axis.
        colour: Of the error bars.

    """
    cells = list(estimates.values())
    return {
        "x": [cell["value"] for cell in cells],
        "y": list(estimates),
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [_distance(cell, "high") for cell in cells],
            "arrayminus": [_distance(cell, "low") for cell in cells],
            "color": colour,
        },
        "customdata": [[Estimate.of(cell).interval_text(3), cell["n"]] for cell in cells],
        "hovertemplate": "%{y}: <b>%{x:.3f}</b> %{customdata[0]} n = %{customdata[1]}<extra></extra>",
    }


def _distance(cell: Mapping[str, Any], bound: str) -> float:
    """From the value to a bound of its interval; 0 without one."""
    return 0.0 if cell[bound] is None else abs(cell[bound] - cell["value"])
