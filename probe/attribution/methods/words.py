"""Lexical attribution: words that answer and source have in common."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from extract.utils import bm25_index
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.methods.base import AttributionMethod
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord

WORD = re.compile(r"\w+")
Weights = Callable[[str], Float[Tensor, "source"]]
"""Score of each source for a word of the answer."""


class _Words(AttributionMethod):
    """A score for each word of the answer, in equal shares to its tokens."""

    @abstractmethod
    def weights(self, texts: Sequence[str]) -> Mapping[str, Float[Tensor, "source"]]:
        """Score of each source for each word that one of them has, in lower case."""

    def attribute(self, record: AttributionRecord, prompt: SourcedPrompt, runs: AblatedRuns | None = None) -> Tensor:
        """Scores of the word that a token belongs to."""
        del runs
        weights, found = self.weights(prompt.source_texts()), torch.zeros(len(record.texts), len(prompt.sources))
        for word, tokens in words_of(record.texts):
            if word in weights:
                found[tokens] += weights[word] / len(tokens)
        return found


def words_of(texts: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Words of an answer in lower case, and the tokens that each of them shares a character with.

    >>> words_of(["In", " Os", "lo", "."])
    [('in', [0]), ('oslo', [1, 2])]

    """
    ends = list(accumulate(map(len, texts)))
    spans = [(end - len(text), end) for text, end in zip(texts, ends, strict=True)]
    return [
        (match.group().lower(), [n for n, (a, b) in enumerate(spans) if a < match.end() and b > match.start()])
        for match in WORD.finditer("".join(texts))
    ]


class Lexical(_Words):
    """Words in common, weighted by rarity: `Σ idf(w)` over the answer's words `w` that a source has.

    `idf(w) = ln((1 + n) / (1 + n_w)) + 1`, where `n_w` of the `n` sources have the word (scikit-learn's).
    """

    default_name = "words in common"

    def weights(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Rarity of each word, in the sources that have it."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(binary=True, norm=None, token_pattern=WORD.pattern)
        try:
            matrix = torch.from_numpy(vectorizer.fit_transform(texts).toarray()).float()
        except ValueError:  # no source has a word
            return {}
        return {word: matrix[:, column] for word, column in vectorizer.vocabulary_.items()}


class BM25(_Words):
    """BM25 of each source with the answer as query: the sum over its words."""

    default_name = "BM25"

    def weights(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """BM25 of each word by itself."""
        words = [WORD.findall(text.lower()) for text in texts]
        if not any(words):
            return {}
        index = bm25_index(words)
        return {
            word: torch.from_numpy(index.get_scores([word])).float() for word in {w for text in words for w in text}
        }
