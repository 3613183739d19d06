"""Retrieval triggers: which sentence of a draft calls for a retrieval."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extract.prompts import Span, TokenizedText, first_characters, sentence_spans, word_spans


@dataclass(frozen=True)
class Draft:
    """Drafted tokens that continue the answer so far.

    Attributes:
        text: Answer and draft together: text, tokens, and the characters of each token.
        start: Index of the first drafted token.
        entropies: Entropy of the next-token distribution that each drafted token was taken from, in nats.
        received: Attention that each drafted token receives from later ones; empty where the trigger uses none.

    """

    text: TokenizedText
    start: int
    entropies: Sequence[float]
    received: Sequence[float]


@dataclass(frozen=True)
class Word:
    """A drafted word after evaluation.

    Attributes:
        text: Its characters.
        span: Where they are in the answer.
        value: Its RIND value; 0 for triggers without one.
        content: Whether it is a content word.

    """

    text: str
    span: Span
    value: float
    content: bool


@dataclass(frozen=True)
class TriggerDecision:
    """Outcome of a trigger on a draft.

    Attributes:
        words: Every drafted word.
        hit: Index of the word that fires; None where none does.
        sentence_start: Character at which the sentence of that word starts.

    """

    words: list[Word]
    hit: int | None = None
    sentence_start: int = 0


@dataclass(frozen=True)
class DraftedWord:
    """A word with drafted tokens: its text, its characters in the answer, its tokens as indices into the draft."""

    text: str
    span: Span
    tokens: list[int]


@dataclass(frozen=True)
class DraftedSentence:
    """A sentence with drafted words: its index in the answer, its first character, these words."""

    index: int
    start: int
    words: list[DraftedWord]


def drafted_sentences(draft: Draft) -> Iterator[DraftedSentence]:
    """Sentences of the answer that have drafted words, in order.

    A token belongs to the word of its first character that is not space. A sentence may have begun before the draft:
    then only its drafted words are listed.

    >>> text = TokenizedText("Ada ran. Bo slept.", [5, 6, 7, 8], [(0, 3), (3, 8), (8, 11), (11, 18)])
    >>> for sentence in drafted_sentences(Draft(text, start=1, entropies=[], received=[])):
    ...     print(sentence.index, [(word.text, word.tokens) for word in sentence.words])
    0 [('ran.', [0])]
    1 [('Bo', [1]), ('slept.', [2])]

    """
    text, tokens = draft.text.text, _tokens_by_word(draft)
    for index, (start, end) in enumerate(sentence_spans(text)):
        inside = [DraftedWord(text[a:b], (a, b), own) for (a, b), own in tokens.items() if start <= a < end]
        if inside:
            yield DraftedSentence(index, start, inside)


def _tokens_by_word(draft: Draft) -> dict[Span, list[int]]:
    """Drafted tokens by the span of their word; both are in order, so one pass over the words is enough."""
    places, spans, at = first_characters(draft.text), word_spans(draft.text.text), 0
    found: dict[Span, list[int]] = {}
    for token in range(draft.start, len(places)):
        while at < len(spans) and spans[at][1] <= places[token]:
            at += 1
        if at < len(spans) and spans[at][0] <= places[token]:
            found.setdefault(spans[at], []).append(token - draft.start)
    return found


class Trigger(ABC):
    """Decides whether a draft calls for a retrieval."""

    include_self: bool | None = None
    """Whether a token's attention on itself counts in the attention it receives; None: no attention is needed."""

    @abstractmethod
    def evaluate(self, sentence: DraftedSentence, draft: Draft) -> tuple[list[Word], int | None]:
        """Words of one sentence with their values, and the index of the first that fires; None where none does."""

    def decide(self, draft: Draft, exhausted: frozenset[int]) -> TriggerDecision:
        """Values of all drafted words, and the first sentence that fires.

        Args:
            draft: The draft.
            exhausted: First characters of sentences that may fire no more: their retries are used up.

        """
        found, hit, sentence_start = list[Word](), None, 0
        for sentence in drafted_sentences(draft):
            evaluated, first = self.evaluate(sentence, draft)
            if hit is None and first is not None and sentence.start not in exhausted:
                hit, sentence_start = len(found) + first, sentence.start
            found += evaluated
        return TriggerDecision(found, hit, sentence_start)

    def describe(self) -> dict[str, Any]:
        """Class and settings, in plain values."""
        return {"class": type(self).__name__}
