"""Heads over steps (Figs. 1 and 5), and how often each head of the model scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from extract.heads import HeadGrid
from extract.utils import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_steps(
    scores: Float[np.ndarray, "step chosen"],
    tokens: Sequence[str],
    heads: Sequence[str],
    title: str,
) -> "Figure":
    """Heatmap head × generated token of one sample's scores, in [0, 1].

    Args:
        scores: Of the heads to show, NaN for none.
        tokens: Texts of the generated tokens.
        heads: Names of the heads, the first on top.
        title: Above the plot.

    """
    from matplotlib.figure import Figure

    width = min(max(6.0, 1.6 + 0.19 * len(scores)), 40.0)
    figure = Figure(figsize=(width, 1.6 + 0.24 * len(heads)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(scores.T, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks(range(len(heads)), heads)
    axis.set_xticks(range(len(tokens)), [_visible(token) for token in tokens], rotation=90, family="monospace")
    axis.tick_params(labelsize=8)
    axis.set_xlabel("generated token")
    axis.set_ylabel("head (layer-head)")
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="retrieval score", pad=0.01)
    return figure


def _visible(token: str) -> str:
    """A token's text with its spaces and breaks shown; a $ would start a formula."""
    shown = token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥").replace("$", r"\$")
    return printable(shown) or "∅"


def plot_frequencies(
    frequency: Float[np.ndarray, "head"], static: Sequence[int], grid: HeadGrid, title: str
) -> "Figure":
    """Heatmap layer × head of the share of steps at which a head is dynamic, static heads framed.

    Args:
        frequency: Of each head.
        static: Numbers of the static heads.
        grid: Of the model's heads.
        title: Above the plot.

    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    size = (1.8 + 0.2 * max(grid.heads, 16), 1.4 + 0.16 * max(grid.layers, 16))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    shares = frequency.reshape(grid.layers, grid.heads)
    image = axis.imshow(shares, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
    for layer, head in map(grid.layer_and_head, static):
        axis.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="#d62728", linewidth=1.4))
    axis.locator_params(integer=True)
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="share of steps at which the head is dynamic", pad=0.02)
    return figure
