"""Labels of grounding by construction, and the tokens of an answer that they are labels of."""

import re
from collections.abc import Sequence

from extract.prompts import Span
from extract.tasks import AnswerFormat, contains, exact_match
from probe.attribution.citations.spans import token_spans
from probe.attribution.grounding.contexts import Context


def label(context: Context, answers: dict[Context, str | None], gold: str, planted: str) -> bool | None:
    """Whether an answer is grounded in its context, by how the context was made; None where that is not known.

    With its evidence: grounded if it is the gold answer and the answer without evidence does not have that. Without
    evidence: not grounded. With a contradiction: grounded if it is the planted answer; not, if it is still the gold
    one, which the context does not have. Answers are equal by exact match (`extract.tasks.exact_match`).

    Args:
        context: Where the answer was given.
        answers: The answer in each context; None where the generation has none.
        gold: Gold answer.
        planted: The answer that the contradiction states.

    >>> answers = {"evidence": "Oslo", "removed": "Paris", "contradiction": "Rome"}
    >>> [label(context, answers, "Oslo", "Rome") for context in answers]
    [True, False, True]
    >>> answers = {"evidence": "Oslo", "removed": "Oslo", "contradiction": "Oslo"}  # from the model's own knowledge
    >>> [label(context, answers, "Oslo", "Rome") for context in answers]
    [None, False, False]

    """
    answer, without = answers[context], answers["removed"]
    if answer is None:
        return None
    if context == "removed":
        return False
    if context == "evidence":
        from_knowledge = without is None or contains(without, gold)
        return None if from_knowledge or not exact_match(answer, gold) else True
    return True if exact_match(answer, planted) else False if exact_match(answer, gold) else None


def answer_span(form: AnswerFormat, generated: str) -> Span | None:
    """Characters at which a generation first has its final answer; None where it has none.

    A chain of thought copies its final answer from its own facts, so that only the first mention may be from the
    context.

    >>> answer_span(AnswerFormat(marker="So the answer is"), "He lives in Oslo. So the answer is Oslo.")
    (12, 16)
    >>> answer_span(AnswerFormat(), " Oslo."), answer_span(AnswerFormat(marker="So the answer is"), "Oslo.")
    ((1, 5), None)

    """
    answer = form.find(generated)
    if not answer:
        return None
    whole = f"{form.opening} {generated}"  # as `AnswerFormat.find` reads it
    after = re.search(re.escape(form.marker), whole, re.IGNORECASE)
    start = whole.index(answer, after.end() if after else 0) - len(form.opening) - 1
    start, end = max(0, start), start + len(answer)
    if end <= 0:  # within the opening, which the prompt has
        return None
    first = re.search(rf"(?<!\w){re.escape(generated[start:end])}(?!\w)", generated)
    return first.span() if first else (start, end)


def tokens_of(texts: Sequence[str], span: Span) -> list[int]:
    """Tokens that share a character with a span of the joined text, whitespace left out.

    >>> tokens_of(["Oslo", " is", " cold", "."], (5, 12))
    [1, 2]

    """
    found = []
    for number, (text, (start, end)) in enumerate(zip(texts, token_spans(texts), strict=True)):
        first = start + len(text) - len(text.lstrip())
        if first < min(end, span[1]) and end > span[0]:
            found.append(number)
    return found
