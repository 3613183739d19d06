"""One sample step by step (Figs. 1 and 5): the scores of its most varying heads."""

from typing import Any

import numpy as np

from extract.errors import UserError
from extract.llm import LLM
from extract.store import ScoreStore
from probe.metrics import most_varying


def example_sample(store: ScoreStore, target: str, number: int, heads: int = 10) -> dict[str, Any]:
    """A sample's tokens, its heads of highest score variance, and their scores [step, head], None for none.

    Args:
        store: The score store.
        target: `copy_paste` (Eq. 1), `reasoning` (Eq. 2) or `contribution`.
        number: The sample.
        heads: How many heads.

    """
    steps = store.steps(number)
    scores = getattr(steps, target).reshape(len(steps), -1).astype(np.float32)
    chosen = most_varying(scores, heads)
    shown = [[round(float(x), 4) if np.isfinite(x) else None for x in row] for row in scores[:, chosen]]
    return {"sample": number, "tokens": _texts(store, steps.tokens.tolist()), "heads": chosen, "scores": shown}


def _texts(store: ScoreStore, ids: list[int]) -> list[str]:
    try:
        tokenizer = LLM(store.identity.name).tokenizer
        return [str(tokenizer.decode([token])) for token in ids]
    except UserError:  # the LLM is not on this machine: token numbers have to do
        return [str(token) for token in ids]
