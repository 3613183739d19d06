"""Heads over steps (Fig. 1 / 5), and how often each head of the model scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from extract.prompts import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def most_varying(scores: Float[NDArray[np.float32], "step head"], count: int) -> list[int]:
    """The heads of highest variance in one sample, most varying first."""
    known = np.isfinite(scores).any(axis=0)
    variance = np.zeros(scores.shape[1])
    variance[known] = np.nanvar(scores[:, known], axis=0)
    heads: list[int] = np.argsort(-variance, kind="stable")[:count].tolist()
    return heads


def plot_steps(
    scores: Float[NDArray[np.float32], "step chosen"],
    tokens: Sequence[str],
    heads: Sequence[int],
    heads_per_layer: int,
    title: str,
) -> "Figure":
    """Heatmap head × generated token of chosen heads in one sample, the first on top."""
    from matplotlib.figure import Figure

    width = min(max(6.0, 1.6 + 0.19 * len(scores)), 40.0)
    figure = Figure(figsize=(width, 1.6 + 0.24 * len(heads)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(scores.T, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks(range(len(heads)), [f"{head // heads_per_layer}-{head % heads_per_layer}" for head in heads])
    axis.set_xticks(range(len(tokens)), [_visible(token) for token in tokens], rotation=90, family="monospace")
    axis.tick_params(labelsize=8)
    axis.set_xlabel("generated token")
    axis.set_ylabel("head (layer-head)")
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="score", pad=0.01)
    return figure


def _visible(token: str) -> str:
    """A token's text with its spaces and breaks shown; a $ would start a formula."""
    shown = token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥").replace("$", r"\$")
    return printable(shown) or "∅"


def plot_frequencies(
    frequency: Float[NDArray[np.float64], "head"],
    static: Sequence[int],
    heads_per_layer: int,
    title: str,
) -> "Figure":
    """Map layer × head of the share of steps at which a head scores; static heads are framed."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    grid = frequency.reshape(-1, heads_per_layer)
    layers, heads = grid.shape
    figure = Figure(figsize=(1.8 + 0.2 * max(heads, 16), 1.4 + 0.16 * max(layers, 16)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(grid, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
    for head in static:
        corner = (head % heads_per_layer - 0.5, head // heads_per_layer - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#d62728", linewidth=1.4))
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="share of steps at which the head scores", pad=0.02)
    return figure
