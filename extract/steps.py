"""One sample of a score store, step by step, and tokens as pieces of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT = 4
"""Tokens before a token that its text may depend on: bytes of one character, or a space that the first word drops."""


@dataclass(frozen=True)
class Steps:
    """A generation as the store keeps it. Row `t` belongs to the query that chose token `t`.

    Attributes:
        sample: The sample's row of the `samples` table: prompt tokens, evidence spans, answer, metrics.
        tokens: Generated tokens.
        hidden: Final hidden state, which the LM head reads and a probe predicts from.
        copy_paste: Eq. 1 of each head.
        reasoning: Eq. 2 of each head; NaN for none.
        looks: Most attended position of each head, counted in prompt and answer; None where the store keeps none.

    """

    sample: dict[str, Any]
    tokens: Int[NDArray[np.int32], "step"]
    hidden: Float[NDArray[Any], "step hidden"]
    copy_paste: Bool[NDArray[np.bool_], "step layer head"]
    reasoning: Float[NDArray[np.float32], "step layer head"]
    looks: Int[NDArray[np.int32], "step layer head"] | None

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.tokens)

    def scoring(self, step: int) -> list[tuple[int, int]]:
        """(layer, head) of the heads that copy at a step (Eq. 1)."""
        return [(int(layer), int(head)) for layer, head in np.argwhere(self.copy_paste[step])]


def token_texts(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[str]:
    """The text that each token adds; joined they are the text of all, without bytes that make up no character.

    A token that ends within a character adds nothing, and the one that completes it adds the character.
    """
    if not len(ids):
        return []  # batch_decode takes an empty list for one empty text
    windows = [list(ids[max(0, end - 1 - CONTEXT) : end]) for end in range(1, len(ids) + 1)]
    options: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    with_it = tokenizer.batch_decode(windows, **options)
    before = tokenizer.batch_decode([window[:-1] for window in windows], **options)
    found = []
    for whole, part in zip(with_it, before, strict=True):
        known = part.rstrip("�")
        found.append(whole.rstrip("�")[len(known) :] if whole.startswith(known) else whole)
    return found
