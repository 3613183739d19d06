"""Failed answers whose text explains the failure: the gold answer in another form, and answers cut off."""

import re

from extract.tasks import contains

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
"""English number words, by their value."""
SHORTEST = 6
"""Fewest letters and digits of a gold answer that is compared without spaces and punctuation."""


def is_other_form(answer: str, gold: str) -> bool:
    """Whether an answer has the gold answer's whole words, number words as digits, or its letters and digits in a row.

    Args:
        answer: The answer, extracted from a generation.
        gold: Gold answer.

    >>> is_other_form("It has three rooms.", "3"), is_other_form("7F3A 9C", "7f3a-9c"), is_other_form("Oslo", "Bergen")
    (True, True, False)

    """
    if contains(_with_digits(answer), _with_digits(gold)):
        return True
    wanted = _bare(gold)
    return len(wanted) >= SHORTEST and wanted in _bare(answer)


def is_cut_off(answer: str, gold: str, ended: bool, begun: bool) -> bool:
    """Whether an answer was not finished: no end token, and either not begun or ended within the gold answer.

    Args:
        answer: The answer, extracted from a generation.
        gold: Gold answer.
        ended: Whether the generation ended by itself.
        begun: Whether the text that is to precede an answer has been generated.

    >>> is_cut_off("It is 7f3a", "7f3a-9c", ended=False, begun=True), is_cut_off("He lives", "Oslo", False, begun=False)
    (True, True)

    """
    if ended:
        return False
    text, wanted = _bare(answer), _bare(gold)
    inside = any(text.endswith(wanted[:size]) for size in range(min(3, len(wanted)), len(wanted)))
    return not begun or inside


def _with_digits(text: str) -> str:
    def digit(found: re.Match[str]) -> str:
        return str(NUMBERS.index(found[0].lower()))

    return re.sub(rf"\b({'|'.join(NUMBERS)})\b", digit, text, flags=re.IGNORECASE)


def _bare(text: str) -> str:
    """Letters and digits, in lower case."""
    return "".join(character for character in text.lower() if character.isalnum())
