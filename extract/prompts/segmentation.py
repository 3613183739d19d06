"""Words and sentences of a text, as character intervals."""

import re
from itertools import pairwise

import regex

from extract.prompts.spans import Span

ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:(?:[A-Z]\.)*[A-Z]|St|Mr|Mrs|Ms|Dr|Prof|Jr|Sr|Lt|Col|Gen|Capt|Mt|No|vs|e\.g|i\.e)\.\Z"
)
"""A full stop that ends no sentence: after an initial, initials or a title."""

FULL_STOP, OTHER_MARKS = r"\p{SB=ATerm}", r"[[\p{SB=STerm}\u037e\u0df4\u0f0d-\u0f11\u0f14]--[!?]]"
"""Marks that end sentences, by Unicode's Sentence_Break; Greek, Sinhala and Tibetan ones are not in it."""
CLOSING = r"[\"'[\p{Pe}--}]\p{Pf}]"
"""Quotes and brackets that close, without the brace of code (`{...}`); ASCII's quotes are the same on both sides."""

SENTENCE_END = regex.compile(
    rf"(?:{FULL_STOP}|[!?]|{OTHER_MARKS})[{CLOSING}\p{{Pi}}]*(?=\s|$)"  # „…“ closes with an opening quote elsewhere
    rf"|{OTHER_MARKS}+{CLOSING}*"  # Chinese, Japanese and others write on without a space
    rf"|[!?]+{CLOSING}*(?=\p{{Lo}})|[．﹒]{CLOSING}*(?!\p{{N}})",  # ASCII's marks among such letters, not in 3．5
    flags=regex.VERSION1,
)
"""The end of a sentence in any script: its mark, closing quotes and brackets, then whitespace or the end of the text.

A mark that is neither `.` nor `!` nor `?` needs no whitespace: `。` and its like end a sentence wherever they stand.

>>> [SENTENCE_END.sub("|", text) for text in ("It is 3.5. Yes!", "他说“好。”我走了！", "वह है। क्या?", "أين؟ هنا.")]
['It is 3.5| Yes|', '他说“好|我走了|', 'वह है| क्या|', 'أين| هنا|']
"""

BOUNDARY = regex.compile(rf"{SENTENCE_END.pattern}|(?<=\S)\n", flags=regex.VERSION1)
"""The end of a sentence, or of a line that is not empty."""


def word_spans(text: str) -> list[Span]:
    """Character intervals of the words: maximal runs without whitespace.

    >>> word_spans("a  bc.")
    [(0, 1), (3, 6)]

    """
    return [match.span() for match in re.finditer(r"\S+", text)]


def sentence_spans(text: str) -> list[Span]:
    """Character intervals of the sentences, adjacent: each begins where the one before ends, its space included.

    A sentence ends with its mark (`SENTENCE_END`), unless that belongs to an abbreviation, or with its line.

    >>> text = "Dr. Ito paid 3.5 million. He won!"
    >>> [text[start:end] for start, end in sentence_spans(text)]
    ['Dr. Ito paid 3.5 million.', ' He won!']

    """
    bounds = [0]
    for match in BOUNDARY.finditer(text):
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
