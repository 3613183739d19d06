"""A ranking of attention heads by one score each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from extract.errors import UserError


@dataclass(frozen=True)
class Ranking:
    """One score for each head; a higher one ranks before a lower one.

    Attributes:
        scores: By layer and head, or by layer and KV head; NaN for a head that the source does not rank.
        whole: The source names the whole grid. A list of heads only shows how large the grid is at least.
        source: Where it comes from, for messages.

    """

    scores: Float[NDArray[np.float64], "layer head"]
    whole: bool
    source: str

    def top(self, n: int) -> list[int]:
        """The `n` best heads as flat numbers (layer × heads a layer + head), ties by number.

        Raises:
            UserError: fewer than `n` heads are ranked.

        """
        flat = self.scores.ravel()
        ranked = int(np.isfinite(flat).sum())
        if not 1 <= n <= ranked:
            raise UserError(f"{self.source} ranks {ranked} heads: the top {n} of them cannot be taken")
        order = np.argsort(np.where(np.isnan(flat), np.inf, -flat), kind="stable")
        return [int(head) for head in order[:n]]

    def on_grid(self, layers: int, heads: int) -> "Ranking":
        """The ranking over all heads of an LLM: every query head of a KV group gets the group's score.

        Raises:
            UserError: the grid is another LLM's.

        """
        own_layers, own_heads = self.scores.shape
        if self.whole:
            fits = own_layers == layers and heads % own_heads == 0
        else:
            fits = own_layers <= layers and own_heads <= heads
        if not fits:
            held = (
                f"{own_layers} layers × {own_heads} heads" if self.whole else f"head {own_layers - 1}-{own_heads - 1}"
            )
            raise UserError(f"{self.source} holds {held}, which does not fit {layers} layers × {heads} heads")
        if self.whole:
            return Ranking(np.repeat(self.scores, heads // own_heads, axis=1), True, self.source)
        scores = np.full((layers, heads), np.nan)
        scores[:own_layers, :own_heads] = self.scores
        return Ranking(scores, True, self.source)

    def by_kv_head(self, kv_heads: int, reduce: Literal["max", "mean"] = "max") -> "Ranking":
        """One score for each KV head: the largest or the mean of its query heads that are ranked."""
        layers, heads = self.scores.shape
        if not 1 <= kv_heads <= heads or heads % kv_heads:
            raise UserError(f"{self.source}: {heads} heads a layer do not form {kv_heads} groups")
        groups = np.ma.masked_invalid(self.scores.reshape(layers, kv_heads, -1))
        reduced = groups.max(axis=2) if reduce == "max" else groups.mean(axis=2)
        return Ranking(np.ma.filled(reduced.astype(np.float64), np.nan), True, self.source)
