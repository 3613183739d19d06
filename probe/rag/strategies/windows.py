"""Algorithm 2: from the attention on a context to the token windows that become visible."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from extract.heads import top_k
from extract.prompts import Span
from extract.utils import NonNegativeInt, PositiveInt, check_fields


@dataclass(frozen=True)
class Windows:
    """Settings of Algorithm 2, all to be tuned on training questions.

    Attributes:
        heads: Heads whose attention is averaged (Section 5: 5).
        k: Most attended positions taken.
        gap: Positions at most this far apart belong to one cluster.
        width: Tokens of a window.

    >>> scores = torch.tensor([0.0, 0.1, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0])
    >>> Windows(k=3, gap=2, width=3).select(scores)
    [(1, 4), (7, 10)]

    """

    heads: PositiveInt = 5
    k: PositiveInt = 16
    gap: NonNegativeInt = 8
    width: PositiveInt = 48

    def __post_init__(self) -> None:
        check_fields(self)

    def select(self, scores: Float[Tensor, "position"]) -> list[Span]:
        """Visible windows of a context, from the mean attention on each of its positions (Algorithm 2).

        The k positions of highest score are clustered, each cluster is represented by its highest position, and a
        window is placed around each representative; windows that overlap or touch are merged.
        """
        found = [
            window(representative(cluster, scores), self.width, len(scores))
            for cluster in clusters(sorted(top_k(scores, self.k).tolist()), self.gap)
        ]
        return merge_spans(found)


def clusters(positions: Sequence[int], gap: int) -> list[list[int]]:
    """Ascending positions, split wherever neighbours are more than `gap` apart (single linkage in one dimension).

    >>> clusters([2, 5, 11, 12, 30], gap=6)
    [[2, 5, 11, 12], [30]]

    """
    found = list[list[int]]()
    for position in positions:
        if found and position - found[-1][-1] <= gap:
            found[-1].append(position)
        else:
            found.append([position])
    return found


def representative(cluster: Sequence[int], scores: Float[Tensor, "position"]) -> int:
    """The position of highest score in a cluster, the first of equal ones.

    >>> representative([1, 3], torch.tensor([0.9, 0.2, 0.8, 0.4]))
    3

    """
    return cluster[int(scores[torch.tensor(list(cluster), device=scores.device)].argmax())]


def window(centre: int, width: int, length: int) -> Span:
    """The `width` tokens around a position, shifted to lie within `length` tokens; all of these where they are fewer.

    >>> window(50, 10, 100), window(1, 10, 100), window(3, 10, 4)
    ((45, 55), (0, 10), (0, 4))

    """
    start = max(0, min(centre - width // 2, length - width))
    return start, min(start + width, length)


def merge_spans(spans: Sequence[Span]) -> list[Span]:
    """Union of half-open spans: sorted, those that overlap or touch merged.

    >>> merge_spans([(7, 9), (0, 3), (3, 5)])
    [(0, 5), (7, 9)]

    """
    found = list[Span]()
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
