"""Page of an attributed answer: a token lights up its sources, a source the tokens that rest on it."""

import re
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from probe.attribution.citations.documents import Document
from probe.attribution.citations.spans import CitedSpan, is_word
from probe.attribution.sources import Source
from probe.results import page_style, page_templates

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_LINKS, LEAST_SHARE = 8, 0.02
"""Sources of a token that the page lights up: the first ones, from this share on."""
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class PageContent:
    """What the page shows of an attributed answer.

    Attributes:
        question, documents, tokens, sources, grounded_from, method: Those of the answer.
        shares: Share of each source in the scores of a token.
        context_share: Context share of each token's word.
        grounded: Whether each token is grounded.
        cited: Spans of the answer with one source each.

    """

    question: str
    documents: tuple[Document, ...]
    tokens: tuple[str, ...]
    sources: tuple[Source, ...]
    grounded_from: float
    method: str
    shares: Float[Tensor, "token source"]
    context_share: Float[Tensor, "token"]
    grounded: list[bool]
    cited: list[CitedSpan]


@dataclass(frozen=True)
class Piece:
    """Characters of a document: a source, or what is between sources.

    Attributes:
        text: The characters.
        source: Index of the source; None between sources.
        cited: Number of the citation; None where it is not cited.

    """

    text: str
    source: int | None = None
    cited: int | None = None


@dataclass(frozen=True)
class AnswerToken:
    """A token of the answer.

    Attributes:
        text: Its text.
        ungrounded: Whether it has a letter or digit and does not rest on the documents.
        ends: Whether it is the last of neighbouring tokens that do not.
        cited: Number of the citation that ends with it; None where none does.

    """

    text: str
    ungrounded: bool
    ends: bool
    cited: int | None


def attribution_page(content: PageContent) -> str:
    """One self-contained HTML file; it fetches nothing, and no text of a document, question or answer is markup."""
    numbers = _citation_numbers(content)
    return (
        _environment()
        .get_template("attribution.html.j2")
        .render(
            style=Markup(page_style() + _asset("attribution.css")),
            script=Markup(_asset("attribution.js")),
            question=content.question,
            method=content.method,
            percent=round(100 * content.grounded_from),
            tokens=answer_tokens(content, numbers),
            documents=[(one, pieces(content, number, numbers)) for number, one in enumerate(content.documents)],
            citations=[(number, *_cited(content, source)) for source, number in numbers.items()],
            links=links(content),
        )
    )


def safe_text(text: str) -> str:
    r"""A text of the same length without characters that a page cannot hold or that reorder it.

    Control characters but tab and line ends, marks of bidirectional text and lone surrogates become U+FFFD.

    >>> safe_text("a\x00b\u202ec")
    'a�b�c'

    """
    return _UNSAFE.sub("\ufffd", text)


def links(content: PageContent) -> dict[str, Any]:
    """What the page's script reads: of each token its best sources with their shares, its flag and context share."""
    rows = []
    for row in content.shares:
        best = row.argsort(descending=True, stable=True)[:MOST_LINKS].tolist()
        rows.append([[source, round(float(row[source]), 3)] for source in best if row[source] >= LEAST_SHARE])
    return {
        "sources": rows,
        "grounded": content.grounded,
        "context": [round(float(share), 3) for share in content.context_share],
        "document": [source.document for source in content.sources],
    }


def _citation_numbers(content: PageContent) -> dict[int, int]:
    """Number of each cited source, from 1 in the order of the answer."""
    return {source: number for number, source in enumerate(dict.fromkeys(s.source for s in content.cited), start=1)}


def _cited(content: PageContent, source: int) -> tuple[int, Document, str]:
    at = content.sources[source]
    document = content.documents[at.document]
    return at.document, document, document.text[at.start : at.end].strip()


def answer_tokens(content: PageContent, numbers: dict[int, int]) -> list[AnswerToken]:
    """The tokens with their marks; punctuation is not marked as ungrounded."""
    marked = [is_word(text) and not on for text, on in zip(content.tokens, content.grounded, strict=True)]
    ends = {next(reversed([n for n, _ in run])) for on, run in groupby(enumerate(marked), lambda one: one[1]) if on}
    cited = {span.last: numbers[span.source] for span in content.cited}
    return [AnswerToken(text, marked[n], n in ends, cited.get(n)) for n, text in enumerate(content.tokens)]


def pieces(content: PageContent, document: int, numbers: dict[int, int]) -> list[Piece]:
    """A document's text as its sources and what is between them; joined, the text."""
    text, end = content.documents[document].text, 0
    found = list[Piece]()
    within = [(s.start, s.end, n) for n, s in enumerate(content.sources) if s.document == document]
    for start, stop, number in sorted(within):
        found += [Piece(text[end:start]), Piece(text[start:stop], number, numbers.get(number))]
        end = stop
    return [piece for piece in (*found, Piece(text[end:])) if piece.text]


def _asset(name: str) -> str:
    return (resources.files("probe.attribution.citations") / "assets" / name).read_text(encoding="utf-8")


def _environment() -> "Environment":
    """Templates that show texts without characters that reorder them."""
    return page_templates("probe.attribution.citations").overlay(finalize=_finalized)


def _finalized(value: Any) -> Any:
    return safe_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
