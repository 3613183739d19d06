"""A ranking of attention heads by one score each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.errors import UserError
from extract.heads import HeadGrid, top_k


@dataclass(frozen=True)
class Ranking:
    """A score for each head; a head of higher score ranks before one of lower score.

    Attributes:
        scores: By layer and head, or by layer and KV head; NaN for a head that the source does not rank.
        whole: Whether the source ranks every head of the model. A list of heads shows only a lower bound of the grid.
        source: Where the ranking comes from, for messages.
        grouped: Whether `scores` may be by KV head: then each score is that of all query heads of its group.

    >>> ranking = Ranking(np.array([[0.1, 0.7], [0.7, np.nan]]), whole=False, source="example")
    >>> ranking.top(2)
    [1, 2]

    """

    scores: Float[np.ndarray, "layer head"]
    whole: bool
    source: str
    grouped: bool = False

    @property
    def grid(self) -> HeadGrid:
        """Numbering of the heads that `scores` covers."""
        return HeadGrid(*self.scores.shape)

    def top(self, n: int) -> list[int]:
        """The `n` heads of highest score as flat numbers (`HeadGrid`), ties by the lower number.

        Raises:
            UserError: fewer than `n` heads are ranked.

        """
        flat = torch.from_numpy(self.scores.ravel())
        ranked = int(flat.isfinite().sum())
        if not 1 <= n <= ranked:
            raise UserError(f"{self.source} ranks {ranked} heads: the top {n} of them cannot be taken")
        heads: list[int] = top_k(flat, n).tolist()
        return heads

    def top_mask(self, n: int) -> Bool[Tensor, "head"]:
        """Whether each head is among the `n` of highest score (see `top`).

        >>> Ranking(np.array([[0.1, 0.7], [0.7, 0.2]]), whole=True, source="example").top_mask(2)
        tensor([False,  True,  True, False])

        """
        return self.grid.mask(map(self.grid.layer_and_head, self.top(n))).flatten()

    def extent(self) -> str:
        """The grid in words; of a list of heads the last that it can hold."""
        own = self.grid
        return f"{own.layers} layers × {own.heads} heads" if self.whole else f"head {own.name(len(own) - 1)}"

    def on_grid(self, layers: int, heads: int) -> "Ranking":
        """The ranking over all query heads of an LLM; each query head of a KV group has the group's score.

        Raises:
            UserError: the grid is another LLM's.

        """
        own = self.grid
        if self.whole:
            fits = own.layers == layers and (own.heads == heads or (self.grouped and heads % own.heads == 0))
        else:
            fits = own.layers <= layers and own.heads <= heads
        if not fits:
            raise UserError(f"{self.source} holds {self.extent()}, which does not fit {layers} layers × {heads} heads")
        if self.whole:
            return Ranking(np.repeat(self.scores, heads // own.heads, axis=1), True, self.source)
        scores = np.full((layers, heads), np.nan)
        scores[: own.layers, : own.heads] = self.scores
        return Ranking(scores, True, self.source)

    def by_kv_head(self, kv_heads: int, reduce: Literal["max", "mean"] = "max") -> "Ranking":
        """The ranking by KV head: the largest, or the mean, score of the ranked query heads of each group.

        Raises:
            UserError: the query heads do not divide into so many groups.

        >>> ranking = Ranking(np.array([[0.1, 0.7, 0.2, np.nan]]), whole=True, source="example")
        >>> ranking.by_kv_head(2).scores, ranking.by_kv_head(2, "mean").scores
        (array([[0.7, 0.2]]), array([[0.4, 0.2]]))

        """
        layers, heads = self.scores.shape
        if not 1 <= kv_heads <= heads or heads % kv_heads:
            raise UserError(f"{self.source}: {heads} heads a layer do not form {kv_heads} groups")
        groups = np.ma.masked_invalid(self.scores.reshape(layers, kv_heads, -1))
        reduced = groups.max(axis=2) if reduce == "max" else groups.mean(axis=2)
        return Ranking(np.ma.filled(reduced.astype(np.float64), np.nan), True, self.source, grouped=True)
