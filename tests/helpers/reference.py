"""Slow, obvious versions of what the project computes fast: no cache, no batch, no interface, plain loops."""

import math
from typing import Any

import numpy as np
import torch

from tests.helpers.families import projections


@torch.no_grad()
def replay(model: Any, prompt: list[int], answer: list[int]) -> dict[str, Any]:
    """One eager forward over prompt and answer: causal attention gives each step's query its own row.

    `model` must have eager attention. Returns the greedy tokens, the logits, the hidden states and, for each step, the
    attention rows of all heads over the keys it could see ([layer × head, key]).
    """
    ids = prompt + answer[:-1]
    first = len(prompt) - 1
    steps = len(ids) - first  # logits of other positions are not computed: the vocabulary is as costly as eight layers
    outputs = {"output_attentions": True, "output_hidden_states": True, "logits_to_keep": steps}
    result = model(torch.tensor([ids]), use_cache=False, **outputs)
    maps = torch.cat([layer[0, :, first:] for layer in result.attentions])
    return {
        "tokens": result.logits[0].argmax(-1).tolist(),
        "logits": result.logits[0],
        "hidden": result.hidden_states[-1][0, first:],
        "attention": [maps[:, step, : first + step + 1] for step in range(steps)],
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
    """Claim 2's two passes without any cache: a full eager forward each time, heads ablated by hooks.

    `model` must have eager attention. Equal forwards are run once. Heads score by Eq. 1, or by Eq. 2 with its
    threshold, sink and local window.
    """

    def __init__(self, model: Any, evidence: set[int], eq2: tuple[float, int, int] | None = None) -> None:
        self.model, self.evidence, self.eq2 = model, evidence, eq2
        self.layers, self.heads = projections(model), model.config.num_attention_heads
        self._results: dict[Any, tuple[int, Any]] = {}

    @torch.no_grad()
    def forward(self, ids: list[int], ablated: dict[int, set[int]], fill: Any = None) -> tuple[int, Any]:
        """Greedy token, and the last query's attention rows [layer × head, key], with heads ablated at positions.

        An ablated head's output is zero, or `fill` [layer, head, size].
        """
        key = (tuple(ids), tuple((at, tuple(sorted(heads))) for at, heads in ablated.items() if heads), fill is None)
        if key not in self._results:
            hooks = [
                projection.register_forward_pre_hook(lambda _, x, layer=layer: self._ablated(x, layer, ablated, fill))
                for layer, projection in enumerate(self.layers)
            ]
            try:
                result = self.model(torch.tensor([ids]), output_attentions=True, use_cache=False, logits_to_keep=1)
            finally:
                for hook in hooks:
                    hook.remove()
            rows = torch.cat([layer[0, :, -1] for layer in result.attentions])
            self._results[key] = int(result.logits[0, -1].argmax()), rows
        return self._results[key]

    def _ablated(self, inputs: Any, layer: int, ablated: dict[int, set[int]], fill: Any) -> Any:
        out, heads = inputs[0].clone(), self.heads
        size = out.shape[-1] // heads
        for position, chosen in ablated.items():
            for head in (head - layer * heads for head in chosen if head // heads == layer):
                part = slice(head * size, (head + 1) * size)
                out[0, position, part] = 0 if fill is None else fill[layer, head]
        return (out,)

    def dynamic(self, ids: list[int], token: int, rows: Any) -> list[int]:
        """Heads that score by Eq. 1, most attention on the needle first; or by Eq. 2, the highest first."""
        if self.eq2 is None:
            scores = [float(eq1(row.tolist(), ids, self.evidence, token)) for row in rows]
            order = rows[:, sorted(self.evidence)].sum(dim=1).tolist()
        else:
            threshold, sink, local = self.eq2
            order = [eq2(row, self.evidence, sink, local) for row in rows]
            scores = [score >= threshold for score in order]
        return sorted((head for head, score in enumerate(scores) if score), key=lambda head: -order[head])

    @torch.no_grad()
    def mean_outputs(self, prompt: list[int]) -> Any:
        """Mean output of every head over a prompt without its last token, [layer, head, size]."""
        means: list[Any] = []
        hooks = [o.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0][0].mean(0))) for o in self.layers]
        self.model(torch.tensor([prompt[:-1]]), use_cache=False)
        for hook in hooks:
            hook.remove()
        return torch.stack(means).unflatten(1, (self.heads, -1))

    def generate(
        self,
        prompt: list[int],
        steps: int,
        ends: Any,
        choose: Any,
        fill: Any = None,
        keep: str = "clean",
        past: dict[int, set[int]] | None = None,
    ) -> list[tuple[int, list[int], set[int], list[int]]]:
        """A greedy generation: token, dynamic heads, ablated heads and heads that score then, for each step.

        `choose` maps the dynamic heads, in their order, to a set to ablate. Later steps see the former ones' `clean`
        or `masked` states. `past` are heads ablated at positions of the prompt, a former answer's.
        """
        ids, past, found = list(prompt), dict(past or {}), list[Any]()
        while len(found) < steps and not (found and found[-1][0] in ends):
            before = self.dynamic(ids, *self.forward(ids, past, fill))
            ablated = choose(before)
            token, rows = self.forward(ids, {**past, len(ids) - 1: ablated}, fill)
            found.append((token, before, ablated, self.dynamic(ids, token, rows)))
            if keep == "masked":
                past[len(ids) - 1] = ablated
            ids.append(token)
        return found


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
