"""Citations: which characters of the answer rest on which source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import regex

from extract.prompts import Span

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}'’\-]--[{_UNSPACED}]]", regex.V1)
"""What continues a word, in scripts that separate words by spaces."""


@dataclass(frozen=True)
class CitedSpan:
    """Neighbouring tokens of an answer with the same source.

    Attributes:
        first, last: Its tokens, both included.
        source: Index of the source.

    """

    first: int
    last: int
    source: int


def cited_spans(tokens: Sequence[str], sources: Sequence[int | None]) -> list[CitedSpan]:
    """Longest spans of neighbouring tokens that rest on the same source.

    A token without a letter or digit, such as a comma, neither begins nor ends a span, and separates none.

    Args:
        tokens: Texts of the answer's tokens.
        sources: The source of each token; None where it has none.

    >>> cited_spans(["Ada", " sings", ",", " Bo", " left"], [0, 0, None, 0, 1])
    [CitedSpan(first=0, last=3, source=0), CitedSpan(first=4, last=4, source=1)]

    """
    found = list[CitedSpan]()
    follows = False  # whether the last word's token ends a span
    for number, (text, source) in enumerate(zip(tokens, sources, strict=True)):
        if not is_word(text):
            continue
        if source is not None and follows and found[-1].source == source:
            found[-1] = CitedSpan(found[-1].first, number, source)
        elif source is not None:
            found.append(CitedSpan(number, number, source))
        follows = source is not None
    return found


def is_word(text: str) -> bool:
    """Whether a token's text has a letter or digit.

    >>> is_word(" Oslo"), is_word(", ")
    (True, False)

    """
    return any(letter.isalnum() for letter in text)


def words(tokens: Sequence[str]) -> list[list[int]]:
    """Tokens of each word: neighbours without a space or a mark between them. Elsewhere each token is a word.

    >>> words(["Oak", "ford", " is", " Bo", "'", "s", "."])
    [[0, 1], [2], [3, 4, 5], [6]]

    """
    found, before = list[list[int]](), ""
    for number, text in enumerate(tokens):
        if found and (not text or (_LETTER.match(before[-1:]) and _LETTER.match(text[0]))):
            found[-1].append(number)
        else:
            found.append([number])
        before = text or before
    return found


def token_spans(tokens: Sequence[str]) -> list[Span]:
    """Characters of each token in the joined text.

    >>> token_spans(["Hi", " there"])
    [(0, 2), (2, 8)]

    """
    return list(_token_spans(tokens))


def _token_spans(tokens: Sequence[str]) -> Iterator[Span]:
    end = 0
    for text in tokens:
        yield end, end + len(text)
        end += len(text)
