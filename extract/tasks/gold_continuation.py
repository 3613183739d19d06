"""Where a generation should have gone on otherwise: a text that leads to the right continuation, and that one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from extract.prompts import Span, sentence_spans

FEWEST_SHARED = 2
"""Fewest first words that a sentence shares with a supporting fact that it begins like."""


@dataclass(frozen=True)
class GoldContinuation:
    """The right answer, or the right fact in a chain of thought, and what precedes it.

    Attributes:
        lead: Text of the answer before it.
        gold: The right text.
        bare: The lead without earlier sentences, which may already hold the mistake; by default all of it.

    """

    lead: str
    gold: str
    bare: str | None = None

    def in_form(self, generated: str) -> "GoldContinuation":
        """The same after the quotation marks or asterisks that a generation has between its lead and its answer.

        >>> GoldContinuation("It is", " 7f3a").in_form('It is "9b".')
        GoldContinuation(lead='It is "', gold='7f3a', bare='It is "')

        """
        rest = generated.removeprefix(self.lead)
        form = re.match(r"[\W_]*", rest)
        if not generated.startswith(self.lead) or form is None or not form[0].strip() or form.end() == len(rest):
            return self
        bare = self.lead if self.bare is None else self.bare
        return GoldContinuation(self.lead + form[0], self.gold.lstrip(), bare + form[0])


def led_to(generated: str, lead: str, gold: str) -> GoldContinuation:
    """The gold answer after the first occurrence of its lead; where that is missing, after the lead alone.

    Args:
        generated: Text that the model generated.
        lead: Text before an answer.
        gold: The gold answer, with a space where one is due.

    >>> led_to("Well. It is 9b.", "It is", " 7f3a")
    GoldContinuation(lead='Well. It is', gold=' 7f3a', bare='It is')

    """
    at = generated.find(lead)
    return GoldContinuation(generated[: at + len(lead)] if at >= 0 else lead, gold, lead)


def fact_astray(generated: str, facts: Sequence[str], question: str) -> GoldContinuation | None:
    """The first sentence that begins like a supporting fact and goes on with words of neither facts nor question.

    Args:
        generated: A chain of thought.
        facts: Supporting facts.
        question: The question.

    >>> fact_astray("Ada is tall. Ada Hill works in Oslo.", ["Ada Hill was born in Bergen."], "Where was she born?")
    GoldContinuation(lead='Ada is tall. Ada Hill', gold=' was born in Bergen.', bare='Ada Hill')

    """
    known = set(_words(" ".join([*facts, question])))
    for start, end in sentence_spans(generated):
        found = _likest(generated[start:end], facts)
        if found is not None and not set(_words(generated[start + found[0] : end])) <= known:
            return _continued(generated, start, *found)
    return None


def fact_followed(generated: str, facts: Sequence[str]) -> GoldContinuation | None:
    """The first sentence that begins like a supporting fact, after its first words.

    Args:
        generated: A chain of thought.
        facts: Supporting facts.

    >>> fact_followed("Ada Hill was born in Bergen. So it is Bergen.", ["Ada Hill was born in Bergen."])
    GoldContinuation(lead='Ada Hill', gold=' was born in Bergen.', bare='Ada Hill')

    """
    for start, end in sentence_spans(generated):
        if (found := _likest(generated[start:end], facts)) is not None:
            fact = found[1]
            first = list(re.finditer(r"\S+", fact))[FEWEST_SHARED - 1].end()
            if fact[first:].strip():
                return _continued(generated, start, first, fact)
    return None


def _continued(generated: str, start: int, shared: int, fact: str) -> GoldContinuation:
    """A fact that follows its first characters at a place of a generation."""
    begin = start + len(generated[start:]) - len(generated[start:].lstrip())
    return GoldContinuation(generated[:begin] + fact[:shared], fact[shared:], fact[:shared])


def _likest(sentence: str, facts: Sequence[str]) -> tuple[int, str] | None:
    """The fact with the longest common beginning of whole words, and that beginning's length; None: all too short."""
    shared = [(_shared_words(sentence.strip(), fact), fact) for fact in facts]
    found = max(shared, key=lambda pair: len(pair[0]), default=([], ""))
    return (found[0][-1][1], found[1]) if len(found[0]) >= FEWEST_SHARED else None


def _shared_words(one: str, other: str) -> list[Span]:
    """Characters of the first words that two texts have in common."""
    pairs = zip(re.finditer(r"\S+", one), re.finditer(r"\S+", other), strict=False)
    found = list[Span]()
    for mine, theirs in pairs:
        if mine[0] != theirs[0] or mine.span() != theirs.span():
            break
        found.append(theirs.span())
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
