"""Passages of a context as a prompt shows them, and the characters of their evidence in it."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from extract.prompts import Span
from extract.tasks.sources import Passage, Record, join_sentences

PASSAGE_BREAK = "\n\n"
"""Text between two passages."""


def evidence_only(passage: Passage) -> Passage:
    """The passage reduced to its evidence, pieces joined by a space.

    >>> evidence_only(Passage("Ada", "Ada sings. She is tall.", evidence=((0, 10),))).text
    'Ada sings.'

    """
    facts = [passage.text[start:end] for start, end in passage.evidence]
    return join_sentences(passage.title, facts, range(len(facts)))


def titled_text(passage: Passage) -> str:
    r"""Title and text as the prompt has them.

    >>> titled_text(Passage("Ada", "Ada sings."))
    'Ada\nAda sings.'

    """
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def context_text(passages: Sequence[Passage]) -> str:
    """The passages as one context."""
    return PASSAGE_BREAK.join(titled_text(passage) for passage in passages)


def evidence_characters(passages: Sequence[Passage]) -> list[Span]:
    """Character intervals of the evidence in `context_text`, titles excluded.

    >>> passages = [Passage("Ada", "Ada sings."), Passage("", "Bo left.", evidence=((0, 8),))]
    >>> [(start, end)] = evidence_characters(passages)
    >>> context_text(passages)[start:end]
    'Bo left.'

    """
    found, at = list[Span](), 0
    for passage in passages:
        shown = titled_text(passage)
        text = at + len(shown) - len(passage.text)
        found += [(text + start, text + end) for start, end in passage.evidence]
        at += len(shown) + len(PASSAGE_BREAK)
    return found


def cut_to_length(record: Record, length: Callable[[Record], int], most: int) -> tuple[Record, int]:
    """Leave out passages until a record's prompt fits, the last ones without evidence first.

    Passages with evidence stay, so the prompt may still be too long.

    Args:
        record: The record.
        length: Tokens of a record's prompt.
        most: Most tokens.

    Returns:
        The record, the same where it fits, and its length.

    >>> record = Record("1", "Who sings?", "Ada", (Passage("", "Ada sings.", ((0, 10),)), Passage("", "Bo left.")))
    >>> cut, tokens = cut_to_length(record, lambda record: 4 * len(record.passages), most=5)
    >>> [passage.text for passage in cut.passages], tokens
    (['Ada sings.'], 4)

    """
    spare = [number for number, passage in enumerate(record.passages) if not passage.evidence]

    def without(count: int) -> Record:
        gone = set(spare[len(spare) - count :])
        kept = tuple(passage for number, passage in enumerate(record.passages) if number not in gone)
        return replace(record, passages=kept)

    whole = length(record)
    if whole <= most or not spare:
        return record, whole
    # a length tokenizes the prompt, so the fewest passages to leave out are found by bisection
    cut = without(bisect_left(range(len(spare)), True, lo=1, key=lambda count: length(without(count)) <= most))
    return cut, length(cut)
