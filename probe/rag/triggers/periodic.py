"""Retrieval at fixed intervals: every sentence, every n-th, never."""

from typing import Any

from extract.utils import PositiveInt, check_value
from probe.rag.triggers.base import Draft, DraftedSentence, Trigger, Word


def _without_value(sentence: DraftedSentence) -> list[Word]:
    return [Word(word.text, word.span, 0.0, True) for word in sentence.words]


class EveryN(Trigger):
    """Every n-th sentence of the answer fires, the first included.

    Args:
        n: Sentences from one retrieval to the next.

    """

    def __init__(self, n: PositiveInt = 2) -> None:
        check_value(n, PositiveInt, "EveryN.n")
        self.n = n

    def describe(self) -> dict[str, Any]:
        """Class and n."""
        return {"class": type(self).__name__, "n": self.n}

    def evaluate(self, sentence: DraftedSentence, draft: Draft) -> tuple[list[Word], int | None]:
        """The first word fires where the sentence's index is a multiple of n."""
        del draft
        return _without_value(sentence), None if sentence.index % self.n else 0


class Always(EveryN):
    """Every sentence fires."""

    def __init__(self) -> None:
        super().__init__(1)


class Never(Trigger):
    """No sentence fires."""

    def evaluate(self, sentence: DraftedSentence, draft: Draft) -> tuple[list[Word], int | None]:
        """Words without values."""
        del draft
        return _without_value(sentence), None
