"""Views of a prompt whose context is partly masked: the tokens to run, their positions, and which of them are keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extract.prompts import Span

MaskMode = Literal["packed", "in_place", "concat"]
"""How a part of the context is masked. `in_place`: every token runs, and an attention mask hides the keys of masked
ones from all queries. `packed`: masked tokens do not run, and the others keep their positions; the logits are the same,
since a token that no query sees changes nothing. `concat`: visible tokens are concatenated, with new positions."""


@dataclass(frozen=True)
class PromptView:
    """Tokens to run, one entry each.

    Attributes:
        tokens: Token ids.
        positions: Position of each token.
        visible: Whether queries of other tokens see its key.
        end: Position of the next token.

    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    visible: tuple[bool, ...]
    end: int

    def __len__(self) -> int:
        """Number of tokens to run."""
        return len(self.tokens)

    def extended(self, answer: Sequence[int]) -> "PromptView":
        """The view followed by generated tokens, all visible.

        >>> masked_view([7, 8, 9], context=(1, 2), windows=[], mask="packed").extended([5]).positions
        (0, 2, 3)

        """
        count = len(answer)
        return PromptView(
            (*self.tokens, *answer),
            (*self.positions, *range(self.end, self.end + count)),
            (*self.visible, *(True,) * count),
            self.end + count,
        )

    def common_prefix(self, other: "PromptView") -> int:
        """Number of first entries that two views share: same tokens, positions and visibility, hence the same keys."""
        count = min(len(self), len(other))
        differs = (self._entries[:, :count] != other._entries[:, :count]).any(axis=0)
        return int(differs.argmax()) if differs.any() else count

    @cached_property
    def _entries(self) -> NDArray[np.int64]:
        return np.array([self.tokens, self.positions, self.visible], np.int64)


def masked_view(ids: Sequence[int], context: Span, windows: Sequence[Span], mask: MaskMode) -> PromptView:
    """A prompt whose context is masked but for some windows.

    Args:
        ids: Prompt tokens.
        context: Token span of the context.
        windows: Visible token spans within it, sorted and disjoint.
        mask: How the rest of the context is masked.

    >>> masked_view([5, 6, 7, 8], context=(1, 3), windows=[(2, 3)], mask="packed")
    PromptView(tokens=(5, 7, 8), positions=(0, 2, 3), visible=(True, True, True), end=4)
    >>> masked_view([5, 6, 7, 8], context=(1, 3), windows=[(2, 3)], mask="in_place").visible
    (True, False, True, True)
    >>> masked_view([5, 6, 7, 8], context=(1, 3), windows=[(2, 3)], mask="concat").positions
    (0, 1, 2)

    """
    shown = [*range(context[0]), *(i for start, end in windows for i in range(start, end))]
    shown += range(context[1], len(ids))
    if mask == "in_place":
        keys = set(shown)
        return PromptView(tuple(ids), tuple(range(len(ids))), tuple(i in keys for i in range(len(ids))), len(ids))
    tokens = tuple(ids[i] for i in shown)
    if mask == "concat":
        return PromptView(tokens, tuple(range(len(tokens))), (True,) * len(tokens), len(tokens))
    return PromptView(tokens, tuple(shown), (True,) * len(tokens), len(ids))


def full_view(ids: Sequence[int]) -> PromptView:
    """A prompt with every token visible.

    >>> full_view([5, 6])
    PromptView(tokens=(5, 6), positions=(0, 1), visible=(True, True), end=2)

    """
    return masked_view(ids, (0, 0), (), "packed")
