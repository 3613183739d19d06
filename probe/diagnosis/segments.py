"""Segments of a context: the evidence, and pieces of all other text that are as long as the evidence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from extract.prompts import Span

MOST_SEGMENTS = 256
"""Most segments beside the evidence; in a longer context they are longer than the evidence."""


@dataclass(frozen=True)
class Segments:
    """Token spans that together are a context.

    Attributes:
        evidence: The needle, or the supporting facts.
        others: All other tokens, in pieces.
        matched: Whether each of the others is about as long as the evidence, so that the two can be compared.

    """

    evidence: tuple[Span, ...]
    others: tuple[Span, ...]
    matched: tuple[bool, ...]

    @property
    def spans(self) -> list[list[Span]]:
        """Evidence, then the others, as sources of recorded steps."""
        return [[span] for span in (*self.evidence, *self.others)]


def split_context(context: Span, evidence: Sequence[Span], most: int = MOST_SEGMENTS) -> Segments:
    """Divide a context into its evidence and segments of the evidence's mean length.

    The text between two spans of evidence is divided into equal pieces, at least one. A piece that is shorter than half
    of that length is not matched.

    Args:
        context: Token span of the context.
        evidence: Token spans of the evidence within it.
        most: Most other segments (a few more for several spans of evidence).

    >>> split_context((10, 31), evidence=[(15, 20)])
    Segments(evidence=((15, 20),), others=((10, 15), (20, 25), (25, 31)), matched=(True, True, True))

    """
    spans = _merged(evidence)
    mean = sum(end - start for start, end in spans) / max(1, len(spans))
    others = context[1] - context[0] - sum(end - start for start, end in spans)
    length = max(1, round(mean), math.ceil(others / most))
    borders = [context[0], *(place for span in spans for place in span), context[1]]
    gaps = zip(borders[::2], borders[1::2], strict=True)
    pieces = [piece for start, end in gaps if end > start for piece in _pieces(start, end, length)]
    return Segments(tuple(spans), tuple(pieces), tuple(2 * (end - start) >= length for start, end in pieces))


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Spans in their order; those that share a token are one."""
    found = list[Span]()
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _pieces(start: int, end: int, length: int) -> list[Span]:
    count = max(1, round((end - start) / length))
    borders = [start + (end - start) * number // count for number in range(count + 1)]
    return list(pairwise(borders))
