"""Generated tokens as text: the characters that each token stands for, words and sentences."""

import re
from itertools import pairwise

from extract.prompts.spans import Span

ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:(?:[A-Z]\.)*[A-Z]|St|Mr|Mrs|Ms|Dr|Prof|Jr|Sr|Lt|Col|Gen|Capt|Mt|No|vs|e\.g|i\.e)\.\Z"
)
"""A full stop that ends no sentence: behind an initial, initials or a title."""


def words(text: str) -> list[Span]:
    """Character intervals of the words: what stands between spaces."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def sentences(text: str) -> list[Span]:
    """Character intervals of the sentences, side by side: each begins where the former ends, its space included.

    A sentence ends behind `.`, `!` or `?` (closing quotes included) before space or the end, or with its line.
    """
    bounds = [0]
    for match in re.finditer(rf"{SENTENCE_END.pattern}|(?<=\S)\n", text):
        sentence = text[bounds[-1] : match.end()]
        if sentence.strip() and not ABBREVIATION.search(sentence):
            bounds.append(match.end())
    if text[bounds[-1] :].strip():
        bounds.append(len(text))
    return list(pairwise(bounds))


def complete_sentence(text: str, behind: int) -> int | None:
    """Where the first complete sentence ends that ends behind a character; None if there is none yet.

    A sentence is complete once nothing that follows can lengthen it: behind `3.` a `5` may come, behind `3. ` not.
    """
    for start, end in sentences(text):
        if end > behind and (end < len(text) or re.search(r"\S\n\Z", text[start:end])):
            return end
    return None


SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")
"""The end of a sentence: its mark, closing quotes and brackets, then space or the end of the text."""
