"""RIND, DRAGIN's real-time information needs detection (Su et al. 2024)."""

from collections.abc import Sequence
from typing import Any, Literal

from extract.utils import FiniteFloat
from probe.rag.triggers.base import Draft, DraftedSentence, Trigger, Word
from probe.rag.triggers.content_words import ContentWords, StopWords


def rind_values(
    entropies: Sequence[float], received: Sequence[float], content: Sequence[bool], normalise: bool
) -> list[float]:
    """RIND value of each word of a sentence: entropy × received attention × content word (Su et al. 2024).

    `value_i = H_i · a_i · s_i`, with H_i the entropy of the next-token distribution in nats, a_i the attention that
    later tokens pay to the word, and s_i 1 for a content word, else 0.

    Args:
        entropies: H_i.
        received: a_i.
        content: s_i.
        normalise: Take `n · a_i / Σ_j a_j` over the sentence's n words for a_i, as DRAGIN's code does; its paper
            takes a_i itself. All values are 0 where no word receives any attention.

    >>> rind_values([1.0, 1.5, 2.0], [0.1, 0.3, 0.4], [True, True, False], normalise=False)
    [0.1, 0.44999999999999996, 0.0]
    >>> rind_values([1.0, 1.5], [0.25, 0.75], [True, True], normalise=True)
    [0.5, 2.25]

    """
    if normalise:
        total = sum(received)
        received = [share * len(received) / total if total else 0.0 for share in received]
    return [h * a if s else 0.0 for h, a, s in zip(entropies, received, content, strict=True)]


class RIND(Trigger):
    """Fires at the first sentence with a word whose RIND value is above a threshold (see `rind_values`).

    Args:
        threshold: For `sentence`, DRAGIN publishes 0.8 and 1.2 (HotpotQA). The values of `plain` are far smaller.
        attention: `sentence`: as in DRAGIN's code, normalised to sum to 1 over the sentence's words and multiplied
            by their number, a token's attention on itself included. `plain`: as in its paper, the largest that a
            later token pays.
        content: Which words are content words; by default all but English function words.

    >>> from extract.prompts import TokenizedText
    >>> text = TokenizedText("Ada swam.", [1, 2], [(0, 3), (3, 9)])
    >>> draft = Draft(text, start=0, entropies=[1.0, 2.0], received=[0.25, 0.75])
    >>> decision = RIND(threshold=1.0).decide(draft, exhausted=frozenset())
    >>> [word.value for word in decision.words], decision.hit
    ([0.5, 3.0], 1)

    """

    def __init__(
        self,
        threshold: FiniteFloat = 1.0,
        attention: Literal["sentence", "plain"] = "sentence",
        content: ContentWords | None = None,
    ) -> None:
        self.threshold, self.attention = threshold, attention
        self.content = content or StopWords()
        self.include_self = attention == "sentence"

    def describe(self) -> dict[str, Any]:
        """Threshold, kind of attention, content words."""
        content = {"content": type(self.content).__name__, **vars(self.content)}
        kept = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in content.items() if not k.startswith("_")}
        return {"class": "RIND", "threshold": self.threshold, "attention": self.attention, **kept}

    def evaluate(self, sentence: DraftedSentence, draft: Draft) -> tuple[list[Word], int | None]:
        """Values of a sentence's words: sub-tokens sum the attention they receive and average their entropy."""
        drafted = sentence.words
        received = [sum(draft.received[token] for token in word.tokens) for word in drafted]
        entropies = [sum(draft.entropies[token] for token in word.tokens) / len(word.tokens) for word in drafted]
        content = self.content.mark([word.text for word in drafted])
        values = rind_values(entropies, received, content, normalise=self.attention == "sentence")
        found = [Word(w.text, w.span, value, c) for w, value, c in zip(drafted, values, content, strict=True)]
        # A threshold below 0 must not let a word without content fire, so that `content` is asked again.
        return found, next((n for n, w in enumerate(found) if w.content and w.value > self.threshold), None)
