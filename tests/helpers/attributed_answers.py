"""Attributed answers made by hand."""

from collections.abc import Sequence

import torch

from probe.attribution.citations import AttributedAnswer, Document
from probe.attribution.sources import Source


def attributed(
    tokens: Sequence[str],
    documents: Sequence[tuple[str, str, Sequence[tuple[int, int]]]],
    scores: Sequence[Sequence[float]],
    context: Sequence[float],
    question: str = "Who?",
) -> AttributedAnswer:
    """An answer whose documents are given as title, text, and characters of their sources."""
    return AttributedAnswer(
        question,
        tuple(Document(text, title) for title, text, _ in documents),
        tuple(tokens),
        tuple(Source(n, start, end) for n, (_, _, spans) in enumerate(documents) for start, end in spans),
        torch.tensor(scores, dtype=torch.float).reshape(len(tokens), -1),
        torch.tensor(context, dtype=torch.float),
        method="by hand",
    )


def example() -> AttributedAnswer:
    """Five tokens, three sources in two documents; the last word is not grounded."""
    town, nurse = "Eastmill is a town in Westria. It is known for silk.", "Maria Hill swam in Eastmill."
    return attributed(
        ["Eastmill", ",", " in", " Westria", " today", "."],
        [("Eastmill", town, [(0, 31), (31, len(town))]), ("", nurse, [(0, len(nurse))])],
        [[0.1, 0.0, 0.9], [0, 0, 0], [0.1, 0.1, 1.2], [2.0, 0.5, 0], [0.1, 0, 0], [-1, -1, -1]],
        [0.9, 0.8, 0.7, 0.95, 0.1, 0.9],
        "Where did Maria Hill swim?",
    )
