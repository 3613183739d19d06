"""BM25 over the sentences of the context."""

import re
from typing import Any

from extract.prompts import Span
from extract.utils import PositiveInt, bm25_index, check_value
from probe.rag import Trigger
from probe.rag.strategies.base import RetrievalState, Retrieved, Strategy
from probe.rag.strategies.windows import Windows, merge_spans


class BM25(Strategy):
    """Sentences of the context by BM25, with question, answer and draft as query: the lexical baseline.

    Args:
        name, windows, trigger: See `Strategy`.
        tokens: Budget: sentences are taken, best first, until at least so many tokens are visible.

    """

    default_name = "bm25"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        tokens: PositiveInt = 192,
    ) -> None:
        super().__init__(name, windows, trigger)
        check_value(tokens, PositiveInt, "BM25.tokens")
        self.tokens = tokens

    def describe(self) -> dict[str, Any]:
        """Settings of every strategy, and the budget."""
        return {**super().describe(), "tokens": self.tokens}

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """The best sentences."""
        question = state.question
        query = f"{question.sample.question} {state.text}"
        return Retrieved(merge_spans(best_sentences(question.sentences, query, self.tokens)))


def best_sentences(sentences: list[tuple[Span, str]], query: str, tokens: int) -> list[Span]:
    """Spans of the sentences with the highest BM25 score, best first, until they hold `tokens` tokens.

    Ties go to the earlier sentence; so a query without a known word gives the first sentences.

    >>> sentences = [((0, 4), "Oslo is cold."), ((4, 9), "Ada lived in Rome."), ((9, 12), "Rome is warm.")]
    >>> best_sentences(sentences, "Where did Ada live?", tokens=4)
    [(4, 9)]
    >>> best_sentences(sentences, "Ada, Rome", tokens=6)
    [(4, 9), (9, 12)]

    """
    index = bm25_index([_words(text) for _, text in sentences])
    known = [word for word in _words(query) if word in index.vocab_dict]
    scores = index.get_scores(known) if known else [0.0] * len(sentences)
    order = sorted(range(len(sentences)), key=lambda number: (-scores[number], number))
    found, held = list[Span](), 0
    for number in order:
        if held >= tokens:
            break
        (start, end), _ = sentences[number]
        found.append((start, end))
        held += end - start
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
