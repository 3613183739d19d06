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


class SlowAblation:
    """Claim 2's two passes without any cache: a full eager forward each time, heads silenced by hooks.

    `model` must have eager attention. Forwards over the same tokens are run once.
    """

    def __init__(self, model: Any, evidence: set[int]) -> None:
        self.model, self.evidence = model, evidence
        self.layers = [block.self_attn.o_proj for block in model.model.layers]
        self.size = model.model.layers[0].self_attn.head_dim
        self._clean: dict[tuple[int, ...], tuple[int, Any]] = {}

    @torch.no_grad()
    def clean(self, ids: list[int]) -> tuple[int, Any]:
        """Greedy token, and the last query's attention rows [layer × head, key]."""
        if tuple(ids) not in self._clean:
            result = self.model(torch.tensor([ids]), output_attentions=True, use_cache=False, logits_to_keep=1)
            rows = torch.cat([layer[0, :, -1] for layer in result.attentions])
            self._clean[tuple(ids)] = int(result.logits[0, -1].argmax()), rows
        return self._clean[tuple(ids)]

    def dynamic(self, ids: list[int]) -> list[int]:
        """Heads that score by Eq. 1 in the clean pass, most attention on the needle first."""
        token, rows = self.clean(ids)
        scoring = [head for head, row in enumerate(rows) if eq1(row.tolist(), ids, self.evidence, token)]
        return sorted(scoring, key=lambda head: -float(rows[head, sorted(self.evidence)].sum()))

    @torch.no_grad()
    def masked(self, ids: list[int], silenced: set[int], fill: Any = None) -> int:
        """Greedy token with heads silenced at the last position alone: zero, or `fill` [layer, head, size]."""
        if not silenced:
            return self.clean(ids)[0]
        heads = self.layers[0].in_features // self.size
        hooks = []
        for layer, projection in enumerate(self.layers):
            columns = [head - layer * heads for head in silenced if head // heads == layer]

            def silence(_: Any, inputs: Any, columns: list[int] = columns, layer: int = layer) -> Any:
                out = inputs[0].clone()
                for head in columns:
                    part = slice(head * self.size, (head + 1) * self.size)
                    out[0, -1, part] = 0 if fill is None else fill[layer, head]
                return (out,)

            hooks.append(projection.register_forward_pre_hook(silence))
        try:
            logits = self.model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits
        finally:
            for hook in hooks:
                hook.remove()
        return int(logits[0, -1].argmax())

    @torch.no_grad()
    def mean_outputs(self, prompt: list[int]) -> Any:
        """Mean output of every head over a prompt without its last token, [layer, head, size]."""
        seen: list[Any] = []
        hooks = [o.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].mean(0))) for o in self.layers]
        self.model(torch.tensor([prompt[:-1]]), use_cache=False)
        for hook in hooks:
            hook.remove()
        return torch.stack(seen).view(len(self.layers), -1, self.size)

    def generate(self, prompt: list[int], steps: int, ends: Any, choose: Any, fill: Any = None) -> list[int]:
        """Tokens of a greedy generation; `choose` maps the dynamic heads, in their order, to a set to silence."""
        ids, answer = list(prompt), list[int]()
        while len(answer) < steps and not (answer and answer[-1] in ends):
            answer.append(self.masked(ids, choose(self.dynamic(ids)), fill))
            ids.append(answer[-1])
        return answer


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
