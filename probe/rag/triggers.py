"""When to retrieve: DRAGIN's RIND, and plainer rules to compare it with."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from extract.errors import UserError
from extract.prompts import Span, TokenizedText, first_characters, sentence_spans, word_spans
from probe.rag.content_words import Content, StopWords


@dataclass(frozen=True)
class Draft:
    """Drafted tokens behind the answer so far.

    Attributes:
        said: Answer and draft together, as text with the characters of each token.
        first: The first token of the draft.
        entropies: Of the distribution that each drafted token was taken from, in nats.
        paid: Attention that each drafted token is paid; empty where the trigger asks for none.

    """

    said: TokenizedText
    first: int
    entropies: Sequence[float]
    paid: Sequence[float]


@dataclass(frozen=True)
class Word:
    """A drafted word: its text, its characters in the answer, its RIND value, whether it carries content."""

    text: str
    span: Span
    value: float
    content: bool


@dataclass(frozen=True)
class TriggerDecision:
    """What a trigger makes of a draft.

    Attributes:
        words: Every drafted word.
        hit: The word that fires; None where none does.
        sentence: Character at which its sentence starts.

    """

    words: list[Word]
    hit: int | None = None
    sentence: int = 0


class Trigger(ABC):
    """Decides whether a draft calls for a retrieval."""

    own: bool | None = None
    """Whether a token's attention on itself counts in what it is paid; None: no attention is looked at."""

    @abstractmethod
    def decide(self, draft: Draft, spent: frozenset[int]) -> TriggerDecision:
        """The first sentence that fires; sentences that start at a `spent` character may not."""

    def describe(self) -> dict[str, Any]:
        """Class and settings."""
        return {"class": type(self).__name__}


class RIND(Trigger):
    """Real-time information needs detection (Su et al. 2024).

    The value of a word is the entropy of its distribution × the attention that it is paid × 1 if it carries content,
    else 0. The first sentence with a word whose value is above the threshold fires.

    Args:
        threshold: For `sentence`, DRAGIN publishes 0.8 and 1.2 (HotpotQA). The values of `plain` are far smaller.
        attention: `sentence`: as DRAGIN's code has it, normalised to sum to 1 over the sentence's words and multiplied
            by their number, a token's attention on itself included. `plain`: as its paper has it, the largest that a
            later token pays.
        content: What a content word is.

    """

    def __init__(
        self,
        threshold: float = 1.0,
        attention: Literal["sentence", "plain"] = "sentence",
        content: Content | None = None,
    ) -> None:
        self.threshold, self.attention = threshold, attention
        self.content = content or StopWords()
        self.own = attention == "sentence"

    def describe(self) -> dict[str, Any]:
        """Threshold, kind of attention, kind of filter."""
        filtered = {"content": type(self.content).__name__, **vars(self.content)}
        kept = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in filtered.items() if not k.startswith("_")}
        return {"class": "RIND", "threshold": self.threshold, "attention": self.attention, **kept}

    def decide(self, draft: Draft, spent: frozenset[int]) -> TriggerDecision:
        """Values of all drafted words, and the first sentence that one of them makes fire."""
        found, hit, sentence = list[Word](), None, 0
        for (start, _), group in _by_sentence(draft):
            evaluated = self._values(draft, group)
            if hit is None and start not in spent:
                fires = [n for n, word in enumerate(evaluated) if word.content and word.value > self.threshold]
                if fires:
                    hit, sentence = len(found) + fires[0], start
            found += evaluated
        return TriggerDecision(found, hit, sentence)

    def _values(self, draft: Draft, group: "list[tuple[Span, list[int]]]") -> list[Word]:
        """Words of one sentence: sub-tokens sum what they are paid and average their entropy."""
        texts = [draft.said.text[start:end] for (start, end), _ in group]
        paid = [sum(draft.paid[token] for token in tokens) for _, tokens in group]
        if self.attention == "sentence":
            total = sum(paid)
            paid = [share * len(group) / total if total else 0.0 for share in paid]
        entropy = [sum(draft.entropies[token] for token in tokens) / len(tokens) for _, tokens in group]
        content = self.content.mark(texts)
        return [
            Word(text, span, e * a if c else 0.0, c)
            for text, (span, _), e, a, c in zip(texts, group, entropy, paid, content, strict=True)
        ]


class EveryN(Trigger):
    """Every n-th sentence of the answer fires, the first included.

    Args:
        n: Sentences from one retrieval to the next.

    """

    def __init__(self, n: int = 2) -> None:
        self.n = n
        if n < 1:
            raise UserError(f"rag trigger: EveryN needs n of at least 1, not {n}")

    def describe(self) -> dict[str, Any]:
        """Class and n."""
        return {"class": type(self).__name__, "n": self.n}

    def decide(self, draft: Draft, spent: frozenset[int]) -> TriggerDecision:
        """The first drafted sentence whose number is a multiple of n."""
        numbers = {start: number for number, (start, _) in enumerate(sentence_spans(draft.said.text))}
        found, hit, sentence = list[Word](), None, 0
        for (start, _), group in _by_sentence(draft):
            if hit is None and start not in spent and numbers[start] % self.n == 0:
                hit, sentence = len(found), start
            found += [Word(draft.said.text[slice(*span)], span, 0.0, True) for span, _ in group]
        return TriggerDecision(found, hit, sentence)


class Always(EveryN):
    """Every sentence fires."""

    def __init__(self) -> None:
        super().__init__(1)


class Never(Trigger):
    """Nothing fires."""

    def decide(self, draft: Draft, spent: frozenset[int]) -> TriggerDecision:
        """No sentence."""
        del spent
        found = [(span, draft.said.text[slice(*span)]) for _, group in _by_sentence(draft) for span, _ in group]
        return TriggerDecision([Word(text, span, 0.0, True) for span, text in found])


def _by_sentence(draft: Draft) -> Iterator[tuple[Span, list[tuple[Span, list[int]]]]]:
    """Sentences that hold drafted words; of each, these words with their tokens, counted within the draft."""
    text, places = draft.said.text, first_characters(draft.said)
    tokens: dict[Span, list[int]] = {}
    spans, at = word_spans(text), 0
    for token in range(draft.first, len(places)):
        while at < len(spans) and spans[at][1] <= places[token]:
            at += 1
        if at < len(spans) and spans[at][0] <= places[token]:
            tokens.setdefault(spans[at], []).append(token - draft.first)
    for start, end in sentence_spans(text):
        group = [(span, mine) for span, mine in tokens.items() if start <= span[0] < end]
        if group:
            yield (start, end), group
