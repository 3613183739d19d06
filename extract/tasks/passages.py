"""Passages as a prompt shows them, and where their evidence stands in it."""

from collections.abc import Sequence

from extract.prompts import Span
from extract.tasks.sources import Passage

GAP = "\n\n"


def gold(passage: Passage) -> Passage:
    """The passage's evidence alone."""
    text, evidence = "", list[Span]()
    for start, end in passage.evidence:
        at = len(text) + bool(text)
        text = f"{text} {passage.text[start:end]}" if text else passage.text[start:end]
        evidence.append((at, len(text)))
    return Passage(passage.title, text, tuple(evidence))


def shown_text(passage: Passage) -> str:
    """Title and text as the prompt has them."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def spans(passages: Sequence[Passage]) -> list[Span]:
    """Character intervals of the evidence in the joined passages, titles excluded."""
    found, at = list[Span](), 0
    for passage in passages:
        shown = shown_text(passage)
        text = at + len(shown) - len(passage.text)
        found += [(text + start, text + end) for start, end in passage.evidence]
        at += len(shown) + len(GAP)
    return found
