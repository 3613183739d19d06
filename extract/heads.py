"""Attention heads by number: the grid of layers × heads, and the one top-k of the project."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.errors import UserError


@dataclass(frozen=True)
class HeadGrid:
    """Layer-major numbering of the query heads of a model: `flat = layer * heads + head`.

    Attributes:
        layers: Number of layers.
        heads: Query heads of each layer.

    >>> grid = HeadGrid(layers=30, heads=9)
    >>> grid.flat(17, 3), grid.layer_and_head(156), grid.name(156), len(grid)
    (156, (17, 3), '17-3', 270)

    """

    layers: int
    heads: int

    def __len__(self) -> int:
        """Heads of the model."""
        return self.layers * self.heads

    def flat(self, layer: int, head: int) -> int:
        """Number of a head."""
        return layer * self.heads + head

    def layer_and_head(self, flat: int) -> tuple[int, int]:
        """Layer and index within it of the head of that number."""
        return divmod(flat, self.heads)

    def name(self, flat: int) -> str:
        """`layer-head`, as published rankings write it."""
        layer, head = self.layer_and_head(flat)
        return f"{layer}-{head}"

    def mask(self, heads: Iterable[tuple[int, int]]) -> Bool[Tensor, "layer head"]:
        """Some heads, each by its layer and its index within the layer, as a mask of the grid.

        Raises:
            UserError: there is no such head.

        >>> HeadGrid(layers=2, heads=3).mask([(1, 0)])
        tensor([[False, False, False],
                [ True, False, False]])

        """
        chosen = torch.zeros(self.layers, self.heads, dtype=torch.bool)
        for layer, head in heads:
            if not (0 <= layer < self.layers and 0 <= head < self.heads):
                raise UserError(f"there is no head {layer}-{head} among {self.layers} layers × {self.heads} heads")
            chosen[layer, head] = True
        return chosen


def top_k(scores: Float[Tensor, "*rows score"], k: int) -> Int[Tensor, "*rows top"]:
    """Indices of the `k` highest scores of each row, highest first; ties by the lower index, NaN last.

    All of them where there are fewer.

    >>> top_k(torch.tensor([0.1, 0.7, float("nan"), 0.7]), 3)
    tensor([1, 3, 0])

    """
    return scores.masked_fill(scores.isnan(), -torch.inf).argsort(dim=-1, descending=True, stable=True)[..., :k]


def top_k_mask(
    scores: Float[Tensor, "*rows score"],
    k: int | Int[Tensor, "*rows"],
    among: Bool[Tensor, "*rows score"] | None = None,
) -> Bool[Tensor, "*rows score"]:
    """Whether each score is among the `k` highest of its row (see `top_k`).

    Args:
        scores: Of any number of rows.
        k: Scores to choose in each row, one number or one for each row; all of them where there are fewer.
        among: Which scores can be chosen; None: all.

    >>> top_k_mask(torch.tensor([[0.1, 0.7, 0.5], [0.0, 0.0, 0.0]]), 2)
    tensor([[False,  True,  True],
            [ True,  True, False]])
    >>> top_k_mask(torch.tensor([0.1, 0.7, 0.5]), 2, among=torch.tensor([True, False, True]))
    tensor([ True, False,  True])
    >>> top_k_mask(torch.tensor([[0.1, 0.7, 0.5], [0.3, 0.2, 0.1]]), torch.tensor([2, 0]))
    tensor([[False,  True,  True],
            [False, False, False]])

    """
    ranked = top_k(scores, scores.shape[-1])
    chosen = torch.ones_like(ranked, dtype=torch.bool) if among is None else among.gather(-1, ranked)
    most = k[..., None] if isinstance(k, Tensor) else k
    return torch.zeros_like(chosen).scatter_(-1, ranked, chosen & (chosen.cumsum(dim=-1) <= most))
