"""Horizontal bars or dots with their 95 % intervals, one for each name."""

from collections.abc import Mapping
from typing import Any


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
            "array": [cell["high"] - cell["value"] for cell in cells],
            "arrayminus": [cell["value"] - cell["low"] for cell in cells],
            "color": colour,
        },
        "customdata": [[cell["low"], cell["high"], cell["n"]] for cell in cells],
        "hovertemplate": "%{y}: <b>%{x:.3f}</b> [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "n = %{customdata[2]}<extra></extra>",
    }
