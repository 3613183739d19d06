"""One sample of a score store, step by step, and the index that finds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray


@dataclass(frozen=True)
class Steps:
    """Scores and hidden states of one generation, a row for each step. Row `t` is of the query that chose token `t`.

    Attributes:
        sample: The sample's row of the `samples` table: prompt tokens, evidence spans, answer, metrics.
        tokens: Generated tokens.
        hidden: Final hidden state: the LM head's input, from which a probe predicts.
        copy_paste: Copy-paste score of each head (Eq. 1).
        reasoning: Reasoning score of each head (Eq. 2), in [0, 1]; NaN where it is undefined.
        argmax: Most attended key position of each head, counted over prompt and answer; None where the store keeps
            none.
        contribution: Logit contribution of the evidence through each head; None where the store keeps none, NaN where
            the prompt has no evidence.

    """

    sample: dict[str, Any]
    tokens: Int[np.ndarray, "step"]
    hidden: Float[np.ndarray, "step hidden"]
    copy_paste: Bool[np.ndarray, "step layer head"]
    reasoning: Float[np.ndarray, "step layer head"]
    argmax: Int[np.ndarray, "step layer head"] | None
    contribution: Float[np.ndarray, "step layer head"] | None = None

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.tokens)

    def scoring(self, step: int) -> list[tuple[int, int]]:
        """(layer, head) of the heads with copy-paste score 1 at a step (Eq. 1): its dynamic heads.

        >>> heads = np.array([[[False, True], [True, False]]])  # one step, 2 layers × 2 heads
        >>> tokens, hidden, reasoning = np.zeros(1, np.int32), np.zeros((1, 8)), np.zeros((1, 2, 2), np.float32)
        >>> Steps({}, tokens, hidden, heads, reasoning, argmax=None).scoring(0)
        [(0, 1), (1, 0)]

        """
        return [(int(layer), int(head)) for layer, head in np.argwhere(self.copy_paste[step])]


class SampleIndex:
    """Shard and row of each sample, found by bisection of the sorted sample numbers.

    Args:
        shards: Sample numbers of each shard, row by row.

    >>> index = SampleIndex([np.array([4, 0]), np.array([], np.int64), np.array([7])])
    >>> index.find(0), index.find(7), index.find(5)
    ((0, 1), (2, 0), None)

    """

    def __init__(self, shards: Sequence[NDArray[np.int64]]) -> None:
        self.starts = np.cumsum([0, *(len(shard) for shard in shards)])
        numbers = np.concatenate([np.zeros(0, np.int64), *shards])
        self.order = np.argsort(numbers, kind="stable")
        self.numbers = numbers[self.order]

    def find(self, sample: int) -> tuple[int, int] | None:
        """Shard of a sample and its row there; None where there is no such sample."""
        place = int(np.searchsorted(self.numbers, sample))
        if place == len(self.numbers) or self.numbers[place] != sample:
            return None
        row = int(self.order[place])
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return shard, row - int(self.starts[shard])
