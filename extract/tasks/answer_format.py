"""The form of an answer: how it is found, evaluated, and written; and where it should have gone on otherwise."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from extract.prompts import Span, sentence_spans
from extract.tasks.answer_metrics import contains, exact_match, f1

ANSWER_END = r"\n|(?<=\w\w\w)\.(?=\s|$)"
"""End of an answer: its line, or a full stop after a word of three letters or more (not `St.`, not `3.5`)."""
FEWEST_SHARED = 2
"""Fewest first words that a sentence shares with a supporting fact that it begins like."""


def find_answer(generated: str, marker: str = "", end: str = ANSWER_END) -> str | None:
    """Extract the answer from a generation.

    Args:
        generated: Text that the model generated.
        marker: Text before the answer, in any case (`So the answer is`); its first occurrence counts, since small
            models go on to questions they invent. Empty where the generation is the answer alone.
        end: Regular expression; the answer ends before its first match.

    Returns:
        The answer without a closing full stop, or None if the marker is missing.

    >>> find_answer("He lives in Oslo. So the answer is Oslo. Next question", "so the answer is")
    'Oslo'

    """
    found = re.search(re.escape(marker), generated, flags=re.IGNORECASE)
    if not found:
        return None
    answer = generated[found.end() :].lstrip(" :\n\t")
    return re.split(end, answer, maxsplit=1)[0].strip().removesuffix(".").strip()


@dataclass(frozen=True)
class AnswerFormat:
    """How a model is to give its answer, and so how the answer is found and evaluated.

    Attributes:
        opening: First words of the answer that the prompt already holds.
        marker: Text before the answer; empty where the generation is the answer alone.
        end: Regular expression of an answer's end.
        gold: The gold `{answer}` as the model should write it, for teacher forcing.

    """

    opening: str = ""
    marker: str = ""
    end: str = ANSWER_END
    gold: str = "{answer}"

    def find(self, generated: str) -> str | None:
        """The answer in a generation, the opening included; None without the marker."""
        return find_answer(f"{self.opening} {generated}".strip(), self.marker, self.end)

    def grade(self, generated: str, gold: str) -> dict[str, float]:
        """Metrics of a generation against the gold answer.

        `em`, `f1`: exact match and F1 of the answer after the marker; 0 without it. `answered`: whether the marker is
        there. `em_last`, `f1_last`: of the answer after the marker, without it of the last sentence. `contains`:
        whether the gold answer is in the generation (see `extract.tasks.contains`).

        >>> form = AnswerFormat(marker="So the answer is")
        >>> form.grade("So the answer is Oslo.", gold="Oslo")
        {'em': 1.0, 'f1': 1.0, 'answered': 1.0, 'em_last': 1.0, 'f1_last': 1.0, 'contains': 1.0}
        >>> form.grade("She was born in 1990. It was in Oslo.", gold="Oslo")
        {'em': 0.0, 'f1': 0.0, 'answered': 0.0, 'em_last': 0.0, 'f1_last': 0.4, 'contains': 1.0}

        """
        found, last = self.find(generated), self.last(generated)
        return {
            "em": 0.0 if found is None else exact_match(found, gold),
            "f1": 0.0 if found is None else f1(found, gold),
            "answered": float(found is not None),
            "em_last": exact_match(last, gold),
            "f1_last": f1(last, gold),
            "contains": contains(generated, gold, last),
        }

    def last(self, generated: str) -> str:
        """The answer after the marker, without it the last sentence.

        >>> AnswerFormat(marker="So the answer is").last("She was born in 1990. It was in Oslo.")
        'It was in Oslo'

        """
        if (found := self.find(generated)) is not None:
            return found
        start, end = (sentence_spans(generated) or [(0, 0)])[-1]
        return generated[start:end].strip().removesuffix(".").strip()

    def forced_opening(self, generated: str) -> str:
        """The marker, where a generation lacks it: its continuation then begins with an answer; else nothing."""
        return "" if self.find(generated) is not None else self.marker

    def forced(self, generated: str, continuation: str | None) -> str:
        """The answer of a generation; of one without the marker, that of its continuation after a forced opening.

        >>> AnswerFormat(marker="So the answer is").forced("She was born in Oslo.", " Oslo. It is")
        'Oslo'

        """
        forced = "" if continuation is None else f" {self.marker}{continuation}"
        return self.find(f"{generated}{forced}") or ""

    def grade_forced(self, generated: str, gold: str, continuation: str | None) -> dict[str, float]:
        """Exact match and F1 of the answer after the marker, the generation's own or the forced one.

        Args:
            generated: Text that the model generated.
            gold: Gold answer.
            continuation: What it generated after the forced opening; None where none was forced.

        >>> AnswerFormat(marker="So the answer is").grade_forced("She was born in Oslo.", "Oslo", " Oslo.")
        {'em_forced': 1.0, 'f1_forced': 1.0}

        """
        answer = self.forced(generated, continuation)
        return {"em_forced": exact_match(answer, gold), "f1_forced": f1(answer, gold)}

    def lead(self, generated: str) -> str:
        """Text before the answer: a generation up to its first marker; without one all of it, and the marker.

        >>> form = AnswerFormat(marker="So the answer is")
        >>> form.lead("He lives in Oslo. So the answer is Bergen."), form.lead("He lives in Oslo.")
        ('He lives in Oslo. So the answer is', 'He lives in Oslo. So the answer is')

        """
        if not self.marker:
            return ""
        found = re.search(re.escape(self.marker), generated, flags=re.IGNORECASE)
        return generated[: found.end()] if found else f"{generated.rstrip()} {self.marker}".lstrip()

    def gold_after(self, answer: str) -> str:
        """The gold answer as it follows the lead.

        >>> AnswerFormat(marker="So the answer is").gold_after("Oslo")
        ' Oslo'

        """
        return f" {answer}" if self.opening or self.marker else answer

    def gold_text(self, answer: str) -> str:
        """The gold answer as it continues the prompt.

        >>> AnswerFormat(gold="So the answer is {answer}.").gold_text("Oslo")
        'So the answer is Oslo.'

        """
        return f" {answer}" if self.opening else self.gold.replace("{answer}", answer)


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
