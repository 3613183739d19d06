"""The form of an answer: how it is found in a generation, evaluated, and written for teacher forcing."""

import re
from dataclasses import dataclass

from extract.prompts import sentence_spans
from extract.tasks.answer_metrics import contains, exact_match, f1

ANSWER_END = r"\n|(?<=\w\w\w)\.(?=\s|$)"
"""End of an answer: its line, or a full stop after a word of three letters or more (not `St.`, not `3.5`)."""


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
