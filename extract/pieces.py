"""Generated tokens as text: the characters that each token stands for, words and sentences."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from extract.haystack import SENTENCE_END
from extract.prompt import Prompt, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTIAL = "\ufffd"
"""What a decoder writes for a character whose bytes are not all there yet."""
ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:(?:[A-Z]\.)*[A-Z]|St|Mr|Mrs|Ms|Dr|Prof|Jr|Sr|Lt|Col|Gen|Capt|Mt|No|vs|e\.g|i\.e)\.$"
)
"""A full stop that ends no sentence: behind an initial, initials or a title."""


def spell(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> Prompt:
    """The text of generated tokens, and each token's half-open character interval.

    Decoded prefix by prefix, which holds for any tokenizer; encoding the text again might give other tokens. A token
    that ends within a character gets an empty interval at that character; the one that completes it has it.
    """
    offsets, end = list[Span](), 0
    for count in range(1, len(ids) + 1):
        text = read(tokenizer, ids[:count])
        stop = len(text if count == len(ids) else text.rstrip(PARTIAL))
        offsets.append((end, max(end, stop)))
        end = max(end, stop)
    return Prompt(read(tokenizer, ids), list(ids), offsets)


def read(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of generated tokens, special ones left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def printable(text: str, keep: str = "") -> str:
    """Text of data for a screen or a picture: control characters, but those to keep, become a mark."""
    return "".join(letter if letter.isprintable() or letter in keep else PARTIAL for letter in text)


def first_characters(spelled: Prompt) -> list[int]:
    """Where each token's first character stands, space before it left out; of a token of space alone, its start."""
    found = []
    for start, end in spelled.offsets:
        piece = spelled.text[start:end]
        found.append(start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0))
    return found


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
        if end > behind and (end < len(text) or text[start:end].endswith("\n")):
            return end
    return None
