"""An answer with its sources: what each of its tokens rests on, as numbers, citations and a page."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from probe.attribution.citations.documents import Document
from probe.attribution.citations.html_view import PageContent, attribution_page
from probe.attribution.citations.spans import CitedSpan, cited_spans, is_word, token_spans, words
from probe.attribution.sources import Source

GROUNDED_FROM = 0.2
"""Default context share from which a token is grounded."""


@dataclass(frozen=True, eq=False)
class AttributedAnswer:
    """An answer whose tokens are traced to their sources in the documents.

    Attributes:
        question: The question.
        documents: The documents of the context.
        tokens: Texts of the answer's tokens; joined, the answer.
        sources: Intervals of the documents whose influence is measured.
        matrix: Attribution score of each source at each token, in the unit of the method.
        context_share: Share of the documents in what contributed to each token, from 0 to 1.
        grounded_from: Context share from which a token is grounded in the documents.
        method: Name of the attribution method.

    """

    question: str
    documents: tuple[Document, ...]
    tokens: tuple[str, ...]
    sources: tuple[Source, ...]
    matrix: Float[Tensor, "token source"]
    context_share: Float[Tensor, "token"]
    grounded_from: float = GROUNDED_FROM
    method: str = ""

    @property
    def answer(self) -> str:
        """Text of the answer."""
        return "".join(self.tokens)

    @cached_property
    def grounded(self) -> Bool[Tensor, "token"]:
        """Whether a token's word rests on the documents: its mean context share suffices, and a source has a score."""
        share = self.by_word(self.context_share[:, None])[:, 0]
        return (share >= self.grounded_from) & (self.word_shares > 0).any(dim=1)

    @cached_property
    def shares(self) -> Float[Tensor, "token source"]:
        """Share of each source in the positive scores of a token; zeros where none is positive."""
        return _positive_shares(self.matrix.nan_to_num())

    @cached_property
    def word_shares(self) -> Float[Tensor, "token source"]:
        """The same for the mean scores of each token's word."""
        return _positive_shares(self.by_word(self.matrix))

    def by_word(self, values: Float[Tensor, "token value"]) -> Float[Tensor, "token value"]:
        """Mean over the tokens of each token's word."""
        found = values.nan_to_num().clone()
        for word in words(self.tokens):
            found[word] = found[word].mean(dim=0)
        return found

    def top_sources(self) -> list[int | None]:
        """Source with the highest score of each token's word; None where it is not grounded."""
        if not self.sources:
            return [None] * len(self.tokens)
        best = self.word_shares.argmax(dim=1).tolist()
        return [source if on else None for source, on in zip(best, self.grounded.tolist(), strict=True)]

    def cited(self) -> list[CitedSpan]:
        """Spans of neighbouring grounded tokens with the same best source."""
        return cited_spans(self.tokens, self.top_sources())

    def citations(self) -> list[dict[str, Any]]:
        """One entry for each span of the answer that rests on one source, in the answer's order.

        Neighbouring grounded words with the same best source are one span. Intervals are half-open and count Unicode
        code points.

        Returns:
            `text`, `start`, `end`: the answer's span. `cited_text`, `document_index`, `document_title`,
            `start_char_index`, `end_char_index`: the source. `share`: mean share of the source in its words' scores.

        """
        at, shares = token_spans(self.tokens), self.word_shares
        found = []
        for span in self.cited():
            letters = [n for n in range(span.first, span.last + 1) if is_word(self.tokens[n])]
            share = float(shares[letters, span.source].mean())
            own = self._span(at[span.first][0], at[span.last][1])
            found.append({**own, **self._cited(span.source), "share": round(share, 4)})
        return found

    def ungrounded(self) -> list[dict[str, Any]]:
        """Spans of the answer that do not rest on the documents: `text`, `start`, `end`, in the answer's order."""
        at, flags = token_spans(self.tokens), self.grounded.tolist()
        spans = cited_spans(self.tokens, [None if on else 0 for on in flags])
        return [self._span(at[span.first][0], at[span.last][1]) for span in spans]

    def _span(self, start: int, end: int) -> dict[str, Any]:
        """Characters of the answer, without whitespace around them."""
        text = self.answer[start:end]
        start += len(text) - len(text.lstrip())
        return {"text": text.strip(), "start": start, "end": start + len(text.strip())}

    def _cited(self, number: int) -> dict[str, Any]:
        """A source as citations name it."""
        source = self.sources[number]
        document = self.documents[source.document]
        return {
            "cited_text": document.text[source.start : source.end],
            "document_index": source.document,
            "document_title": document.title or None,
            "start_char_index": source.start,
            "end_char_index": source.end,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values: question, answer, its tokens with their flags, sources, matrix, citations."""
        columns = zip(self.tokens, token_spans(self.tokens), self.grounded.tolist(), self.context_share, strict=True)
        return {
            "question": self.question,
            "answer": self.answer,
            "citations": self.citations(),
            "ungrounded": self.ungrounded(),
            "method": self.method,
            "grounded_from": self.grounded_from,
            "tokens": [
                {"text": text, "start": start, "end": end, "grounded": on, "context_share": round(float(share), 4)}
                for text, (start, end), on, share in columns
            ],
            "documents": [{"title": one.title or None, "text": one.text} for one in self.documents],
            "sources": [self._cited(number) for number in range(len(self.sources))],
            "matrix": [[float(f"{score:.5g}") for score in row] for row in self.matrix.nan_to_num().tolist()],
        }

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)

    def to_html(self) -> str:
        """One self-contained page: a token lights up its sources, a source its tokens (see `attribution_page`)."""
        content = PageContent(
            question=self.question,
            documents=self.documents,
            tokens=self.tokens,
            sources=self.sources,
            grounded_from=self.grounded_from,
            method=self.method,
            shares=self.shares,
            context_share=self.by_word(self.context_share[:, None])[:, 0],
            grounded=self.grounded.tolist(),
            cited=self.cited(),
        )
        return attribution_page(content)


def _positive_shares(scores: Float[Tensor, "token source"]) -> Float[Tensor, "token source"]:
    positive = scores.clamp(min=0)
    total = positive.sum(dim=1, keepdim=True)
    return positive / total.where(total > 0, 1)
