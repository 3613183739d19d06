"""Words and sentences of a text, as character intervals."""

import re
from itertools import pairwise

from extract.prompts.spans import Span

ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:(?:[A-Z]\.)*[A-Z]|St|Mr|Mrs|Ms|Dr|Prof|Jr|Sr|Lt|Col|Gen|Capt|Mt|No|vs|e\.g|i\.e)\.\Z"
)
"""A full stop that ends no sentence: after an initial, initials or a title."""

SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")
"""The end of a sentence: its mark, closing quotes and brackets, then whitespace or the end of the text."""


def word_spans(text: str) -> list[Span]:
    """Character intervals of the words: maximal runs without whitespace.

    >>> word_spans("a  bc.")
    [(0, 1), (3, 6)]

    """
    return [match.span() for match in re.finditer(r"\S+", text)]


def sentence_spans(text: str) -> list[Span]:
    """Character intervals of the sentences, adjacent: each begins where the one before ends, its space included.

    A sentence ends after `.`, `!` or `?` (closing quotes included) before whitespace or the end, or with its line.

    >>> text = "Dr. Ito paid 3.5 million. He won!"
    >>> [text[start:end] for start, end in sentence_spans(text)]
    ['Dr. Ito paid 3.5 million.', ' He won!']

    """
    bounds = [0]
    for match in re.finditer(rf"{SENTENCE_END.pattern}|(?<=\S)\n", text):
        sentence = text[bounds[-1] : match.end()]
        if sentence.strip() and not ABBREVIATION.search(sentence):
            bounds.append(match.end())
    if text[bounds[-1] :].strip():
        bounds.append(len(text))
    return list(pairwise(bounds))


def complete_sentence_end(text: str, after: int) -> int | None:
    """End of the first complete sentence that ends after character `after`; None if there is none yet.

    A sentence is complete once nothing that follows can lengthen it: after `3.` a `5` may come, after `3. ` not.

    >>> complete_sentence_end("It is 3.", 0), complete_sentence_end("It is 3. So", 0)
    (None, 8)

    """
    for start, end in sentence_spans(text):
        if end > after and (end < len(text) or re.search(r"\S\n\Z", text[start:end])):
            return end
    return None
