"""Where a needle goes into a haystack: at a wanted depth, at the end of a sentence."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import regex

from extract.prompts import SENTENCE_END

Boundary = Literal["sentence", "word", "token"]
"""After what a haystack is divided: sentences; words, where sentence ends are few; tokens, where spaces are, too."""
Placement = Literal["before", "nearest"]
"""Which boundary takes the needle: the last one at or before the wanted depth, or the one nearest to it."""
SPARSE = 1000
"""Characters: with a mean of more from one sentence end (or space) to the next, these are few."""

_ENDS = {"sentence": SENTENCE_END, "word": regex.compile(r"(?<=\S)(?=\s)")}


@dataclass(frozen=True)
class Insertion:
    """A haystack with its needle.

    Attributes:
        text: Haystack and needle.
        depth: Real depth of the needle: after n of the haystack's N tokens it is 100 · n / N percent.

    """

    text: str
    depth: float


def boundary_of(text: str) -> Boundary:
    """After what a text is divided.

    >>> boundary_of("One is one. Two is two."), boundary_of("ein Satz ohne Ende"), boundary_of("無句點")
    ('sentence', 'word', 'token')

    """
    if len(SENTENCE_END.findall(text)) * SPARSE >= len(text):
        return "sentence"
    return "word" if text.count(" ") * SPARSE >= len(text) else "token"


def boundary_ends(text: str, boundary: Boundary, token_ends: Sequence[int]) -> list[int]:
    """Characters at which a text may be divided: the ends of its sentences, words or tokens.

    >>> boundary_ends("One is one. Two", "sentence", token_ends=[3, 6, 10, 11, 15])
    [11]

    """
    if boundary == "token":
        return list(token_ends)
    return [match.end() for match in _ENDS[boundary].finditer(text)]


def insert_needle(
    context: str,
    needle: str,
    depth: float,
    token_ends: Sequence[int],
    boundary: Boundary = "sentence",
    placement: Placement = "before",
) -> Insertion:
    """Insert the needle at the boundary before, or nearest to, a depth; the beginning of the text is one, too.

    Args:
        context: The haystack.
        needle: The sentence to hide.
        depth: Wanted depth, in percent of the haystack's tokens.
        token_ends: Last character of each token of the haystack, exclusive.
        boundary: After what to insert it.
        placement: `before` steps back from the depth (A.1).

    >>> insert_needle("One is one. Two is two.", "Hi.", depth=75, token_ends=[3, 6, 10, 11, 15, 18, 22, 23])
    Insertion(text='One is one. Hi. Two is two.', depth=50.0)

    """
    ends = [0, *boundary_ends(context, boundary, token_ends)]
    wanted = round(len(token_ends) * depth / 100)
    limit = token_ends[wanted - 1] if wanted else 0

    def tokens_before(end: int) -> int:
        return bisect.bisect_right(token_ends, end)

    if placement == "before":
        at = max(end for end in ends if end <= limit)
    else:
        at = min(ends, key=lambda end: abs(tokens_before(end) - wanted))
    parts = (context[:at].rstrip(), needle, context[at:].lstrip())
    return Insertion(" ".join(part for part in parts if part), 100 * tokens_before(at) / len(token_ends))
