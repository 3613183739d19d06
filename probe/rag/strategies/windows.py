"""Algorithm 2: from the attention on a context to the windows that stay visible."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from extract.errors import UserError
from extract.prompts import Span


@dataclass(frozen=True)
class Windows:
    """Settings of Algorithm 2, all to be tuned on training questions.

    Attributes:
        heads: Heads whose attention is averaged (Section 5: 5).
        k: Most attended positions taken.
        gap: Positions at most this far apart belong to one cluster.
        width: Tokens of a window.

    """

    heads: int = 5
    k: int = 16
    gap: int = 8
    width: int = 48

    def check(self) -> None:
        """Bad settings raise a UserError."""
        if min(self.heads, self.k, self.width) < 1 or self.gap < 0:
            raise UserError(f"rag windows: heads, k and width of at least 1, gap of at least 0, not {self}")

    def around(self, scores: Float[Tensor, "position"]) -> list[Span]:
        """Visible windows of a context, from the attention on each of its positions."""
        found = [
            window(representative(cluster, scores), self.width, len(scores))
            for cluster in clusters(top_positions(scores, self.k), self.gap)
        ]
        return merged(found)


def top_positions(scores: Float[Tensor, "position"], k: int) -> list[int]:
    """The k positions of highest score, ascending; the first of equal ones, all where there are fewer."""
    first = scores.argsort(descending=True, stable=True)[:k]
    return sorted(int(position) for position in first.tolist())


def clusters(positions: Sequence[int], gap: int) -> list[list[int]]:
    """Ascending positions, parted wherever neighbours stand more than `gap` apart."""
    found = list[list[int]]()
    for position in positions:
        if found and position - found[-1][-1] <= gap:
            found[-1].append(position)
        else:
            found.append([position])
    return found


def representative(cluster: Sequence[int], scores: Float[Tensor, "position"]) -> int:
    """The position of highest score in a cluster, the first of equal ones."""
    return cluster[int(scores[torch.tensor(list(cluster), device=scores.device)].argmax())]


def window(centre: int, width: int, length: int) -> Span:
    """The `width` tokens about a position, moved to lie within `length` tokens; all of these where they are fewer."""
    start = max(0, min(centre - width // 2, length - width))
    return start, min(start + width, length)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Spans in order, those that overlap or touch made one."""
    found = list[Span]()
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
