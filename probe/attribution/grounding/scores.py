"""Scores of grounding: for each token of an answer, how much speaks for its coming from the context."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from extract.tasks import contains, normalize
from probe.attribution.citations.grounding import context_share, positive_share
from probe.attribution.citations.spans import words
from probe.attribution.record import AttributionRecord


@dataclass(frozen=True, eq=False)
class Measured:
    """What the scores are computed from.

    Attributes:
        record: The answer.
        context: Text of the context that it was given.
        without: Log-probability of each token without any passage.

    """

    record: AttributionRecord
    context: str
    without: Float[Tensor, "token"]


def attention_share(record: AttributionRecord, copying: bool) -> Float[Tensor, "token"]:
    """Share of the context in the attention of all heads, or of those that copy; 0 where none copies.

    `Σ a[head, source] over the context's sources / Σ a[head, source] over all`, answer so far and rest of the prompt
    included.
    """
    attention = record.attention * record.copies[..., None] if copying else record.attention
    return positive_share(attention.sum(dim=(1, 2)))


def context_contribution(record: AttributionRecord) -> Float[Tensor, "token"]:
    """Logit contribution of the whole context through all heads, in logits."""
    return record.contribution[..., :-2].sum(dim=(1, 2, 3))


def string_match(tokens: Sequence[str], context: str) -> Float[Tensor, "token"]:
    """Whether each token's word is in the context, as whole words after SQuAD normalization; 1 for articles and marks.

    >>> string_match(["Os", "lo", " or", " Rome", "."], "Ada lives in Oslo.").tolist()
    [1.0, 1.0, 0.0, 0.0, 1.0]

    """
    found = torch.ones(len(tokens))
    for word in words(tokens):
        text = "".join(tokens[number] for number in word)
        found[word] = contains(context, text) if normalize(text) else 1.0
    return found


Score = Callable[[Measured], Tensor]
SCORES: dict[str, Score] = {
    "contribution share, copying heads": lambda one: context_share(one.record),
    "contribution share, all heads": lambda one: positive_share(one.record.contribution.sum(dim=(1, 2))),
    "attention share, copying heads": lambda one: attention_share(one.record, copying=True),
    "attention share, all heads": lambda one: attention_share(one.record, copying=False),
    "contribution of the context": lambda one: context_contribution(one.record),
}
"""Share of the context in what the heads attend to and write; the first is that of `probe.attribute`."""
BASELINES: dict[str, Score] = {
    "string match": lambda one: string_match(one.record.texts, one.context),
    "low entropy": lambda one: -one.record.entropies,
    "maximal probability": lambda one: one.record.log_probs.exp(),
    "drop without context": lambda one: one.record.log_probs - one.without,
}
"""Scores that need no heads. The last one needs a further forward: fall of log-probability without any passage."""


def token_scores(measured: Measured) -> dict[str, Float[Tensor, "token"]]:
    """Every score of each token, the mean over its word (as in `probe.attribute`)."""
    found = {name: score(measured).double() for name, score in (SCORES | BASELINES).items()}
    for values in found.values():
        for word in words(measured.record.texts):
            values[word] = values[word].mean()
    return found


def answer_scores(found: dict[str, Float[Tensor, "token"]], tokens: list[int], measured: Measured) -> dict[str, float]:
    """Every score of an answer: the mean over its tokens; its string match is that of the whole answer.

    Args:
        found: Scores of all tokens of the generation.
        tokens: Those of the final answer.
        measured: What they were computed from.

    """
    means = {name: float(values[tokens].mean()) for name, values in found.items()}
    return {**means, "string match": contains(measured.context, "".join(measured.record.texts[n] for n in tokens))}
