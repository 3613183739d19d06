"""One sample of a score store, step by step, and tokens as pieces of text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray


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
    argmax: Int[NDArray[np.int32], "step layer head"] | None

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.tokens)

    def scoring(self, step: int) -> list[tuple[int, int]]:
        """(layer, head) of the heads that copy at a step (Eq. 1)."""
        return [(int(layer), int(head)) for layer, head in np.argwhere(self.copy_paste[step])]
