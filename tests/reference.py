"""Slow, obvious versions of what the project computes fast: no cache, no batch, no interface, plain loops."""

import math
from typing import Any

import numpy as np
import torch


@torch.no_grad()
def replay(model: Any, prompt: list[int], answer: list[int]) -> dict[str, Any]:
    """One eager forward over prompt and answer: causal attention gives each step's query its own row.

    `model` must have eager attention. Returns the greedy tokens, the hidden states and, for each step, the attention
    rows of all heads over the keys it could see ([layer × head, key]).
    """
    ids = prompt + answer[:-1]
    result = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True, use_cache=False)
    first = len(prompt) - 1
    maps = torch.cat([layer[0] for layer in result.attentions])
    return {
        "tokens": result.logits[0, first:].argmax(-1).tolist(),
        "hidden": result.hidden_states[-1][0, first:],
        "attention": [maps[:, query, : query + 1] for query in range(first, len(ids))],
    }


def eq1(row: Any, ids: list[int], needle: set[int], generated: int) -> int:
    """Eq. 1 for one head and step."""
    best = max(range(len(row)), key=lambda i: float(row[i]))
    return int(best in needle and ids[best] == generated)


def eq2(row: Any, evidence: set[int], sink: int, local: int) -> float:
    """Eq. 2 for one head and step, from its attention row over an unpadded sequence."""
    values = [float(value) for value in row]
    kept = range(sink, max(sink, len(values) - local))
    facts = [i for i in sorted(evidence) if i in kept]
    if not facts:
        return math.nan
    total = math.fsum(values[i] for i in kept)
    return math.fsum(values[i] for i in facts) / total if total > 0 else math.nan


def asl(logits: Any, labels: Any, gamma_neg: float, gamma_pos: float, clip: float) -> float:
    """Asymmetric loss by its formula, in float64, one label at a time."""
    total = 0.0
    for row_x, row_y in zip(np.asarray(logits, np.float64), np.asarray(labels), strict=True):
        for x, y in zip(row_x, row_y, strict=True):
            p = 1 / (1 + math.exp(-x))
            p_neg = min(1 - p + clip, 1.0)
            if y:
                total -= math.log(p) * (1 - p) ** gamma_pos
            else:
                total -= math.log(p_neg) * (1 - p_neg) ** gamma_neg
    return total / len(logits)
