"""The form of an answer: how it is found in a generation, evaluated, and written for teacher forcing."""

import re
from dataclasses import dataclass

from extract.tasks.answer_metrics import exact_match, f1

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
        """Exact match, F1, and whether an answer was found at all; a generation without the marker is wrong.

        >>> AnswerFormat(marker="So the answer is").grade("So the answer is Oslo.", gold="Oslo")
        {'em': 1.0, 'f1': 1.0, 'answered': 1.0}

        """
        found = self.find(generated)
        if found is None:
            return {"em": 0.0, "f1": 0.0, "answered": 0.0}
        return {"em": exact_match(found, gold), "f1": f1(found, gold), "answered": 1.0}

    def gold_text(self, answer: str) -> str:
        """The gold answer as it continues the prompt.

        >>> AnswerFormat(gold="So the answer is {answer}.").gold_text("Oslo")
        'So the answer is Oslo.'

        """
        return f" {answer}" if self.opening else self.gold.replace("{answer}", answer)
