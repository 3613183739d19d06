"""Sources: the sentences, passages or tokens of documents whose influence on an answer is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from extract.errors import UserError
from extract.prompts import Span, sentence_spans, tokenize_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Unit = Literal["sentence", "passage", "token"]
"""What a source is: a sentence, a whole document, or a token of the model's tokenizer."""


@dataclass(frozen=True)
class Source:
    """A part of a document, without whitespace around it.

    Attributes:
        document: Index of the document.
        start, end: Half-open interval of its characters.

    """

    document: int
    start: int
    end: int


def split_sources(
    documents: Sequence[str], unit: Unit = "sentence", tokenizer: "PreTrainedTokenizerBase | None" = None
) -> list[Source]:
    """Sources of some documents, in their order.

    Args:
        documents: Their texts.
        unit: What a source is.
        tokenizer: The model's tokenizer, for the unit `token`.

    Raises:
        UserError: there is no document, one has no text, or the unit is unknown.

    >>> split_sources(["Ada sings. She is tall.", "Bo left."])
    [Source(document=0, start=0, end=10), Source(document=0, start=11, end=23), Source(document=1, start=0, end=8)]

    """
    if unit not in get_args(Unit) or (unit == "token" and tokenizer is None):
        raise UserError(f"unit '{unit}': sentence, passage, or token with a tokenizer")
    if not documents:
        raise UserError("an answer without documents has no sources; give at least one document")
    found = list[Source]()
    for number, text in enumerate(documents):
        if not text.strip():
            raise UserError(f"document {number + 1} of {len(documents)} has no text; give it one, or leave it out")
        spans = [_stripped(text, span) for span in _spans(text, unit, tokenizer)]
        # Tokens of one character share it: the first of them is the source.
        found += [Source(number, *span) for span in dict.fromkeys(spans) if span[0] < span[1]]
    return found


def _spans(text: str, unit: Unit, tokenizer: "PreTrainedTokenizerBase | None") -> list[Span]:
    if unit == "passage":
        return [(0, len(text))]
    if unit == "sentence" or tokenizer is None:
        return sentence_spans(text)
    return tokenize_with_offsets(tokenizer, text, special=False).offsets


def _stripped(text: str, span: Span) -> Span:
    """A span without the whitespace at its ends."""
    start, end = span
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def kept_text(text: str, sources: Sequence[Source], kept: Sequence[bool]) -> str:
    """A document's text without some of its sources; whitespace after a source goes with it.

    Args:
        text: The document.
        sources: All of its sources, in their order.
        kept: Whether each of them stays.

    >>> text = "Ada sings. She is tall. She left."
    >>> kept_text(text, split_sources([text]), [True, False, True])
    'Ada sings. She left.'

    """
    if all(kept):
        return text
    bounds = pairwise([*(source.start for source in sources), len(text)])
    return "".join(text[start:end] for (start, end), stays in zip(bounds, kept, strict=True) if stays).rstrip()
