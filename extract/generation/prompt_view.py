"""What a masked context leaves of a prompt: the tokens to run, their positions, and which of them are keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from extract.prompts import Span

Mask = Literal["packed", "in_place", "concat"]
"""How a part of the context is hidden. `in_place`: every token runs, and a mask hides the keys of hidden ones from all
queries. `packed`: hidden tokens do not run, the others keep their positions; the logits are the same, since a token
that nothing sees changes nothing. `concat`: what is visible is put side by side, with fresh positions."""


@dataclass(frozen=True)
class View:
    """Tokens to run, one entry each.

    Attributes:
        tokens: Token ids.
        positions: Their positions.
        visible: Whether they are keys.
        end: Position of the next token.

    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    visible: tuple[bool, ...]
    end: int

    def __len__(self) -> int:
        """Number of tokens to run."""
        return len(self.tokens)

    def then(self, answer: Sequence[int]) -> "View":
        """The view with generated tokens behind it."""
        count = len(answer)
        return View(
            (*self.tokens, *answer),
            (*self.positions, *range(self.end, self.end + count)),
            (*self.visible, *(True,) * count),
            self.end + count,
        )

    def shared(self, other: "View") -> int:
        """How many first tokens of both are the same, at the same positions, hidden or not alike."""
        count = min(len(self), len(other))
        differs = (self._entries[:, :count] != other._entries[:, :count]).any(axis=0)
        return int(differs.argmax()) if differs.any() else count

    @cached_property
    def _entries(self) -> NDArray[np.int64]:
        return np.array([self.tokens, self.positions, self.visible], np.int64)


def view(ids: Sequence[int], context: Span, windows: Sequence[Span], mask: Mask) -> View:
    """A prompt whose context shows only the windows.

    Args:
        ids: Prompt tokens.
        context: Token span of the context.
        windows: Visible token spans within it, sorted and disjoint.
        mask: How the others are hidden.

    """
    shown = [*range(context[0]), *(i for start, end in windows for i in range(start, end))]
    shown += range(context[1], len(ids))
    if mask == "in_place":
        keys = set(shown)
        return View(tuple(ids), tuple(range(len(ids))), tuple(i in keys for i in range(len(ids))), len(ids))
    tokens = tuple(ids[i] for i in shown)
    if mask == "concat":
        return View(tokens, tuple(range(len(tokens))), (True,) * len(tokens), len(tokens))
    return View(tokens, tuple(shown), (True,) * len(tokens), len(ids))


def whole(ids: Sequence[int]) -> View:
    """A prompt with everything visible."""
    return view(ids, (0, 0), (), "packed")
