"""Why an answer failed: classes, their rule, and thresholds from solved answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extract.utils import FiniteFloat, Share, check_fields
from probe.diagnosis.statistics import TokenStatistics

Cause = Literal["other_form", "cut_off", "follows", "not_attended", "not_written", "knowledge", "context", "undecided"]
"""Why an answer failed."""
CAUSES: dict[Cause, str] = {
    "other_form": "right in another form",
    "cut_off": "cut off",
    "follows": "follows its own earlier text",
    "not_attended": "not attended",
    "not_written": "attended, not written",
    "knowledge": "written, outvoted by the model's knowledge",
    "context": "written, outvoted by the context",
    "undecided": "undecided",
}
"""Causes in the order of the rule, as results name them."""
FEWEST_SOLVED = 20
"""Fewest solved answers of training prompts that thresholds are taken from."""
FEWEST_MATCHED = 3
"""Fewest matched segments that the evidence is compared with."""


@dataclass(frozen=True)
class Thresholds:
    """Borders between causes.

    Attributes:
        attended: Margin of attention (see `attended_margin`) up to which the evidence is not attended.
        written: Standard score (see `written_score`) up to which the evidence is not written.
        outvoted: Share (see `outvoted_share`) from which a segment of the context outvotes the evidence.

    """

    attended: FiniteFloat
    written: FiniteFloat
    outvoted: Share

    def __post_init__(self) -> None:
        check_fields(self)


CHANCE = Thresholds(attended=0.0, written=2.0, outvoted=0.5)
"""Borders of chance: the evidence is attended and written no more than matched segments are, with two standard
deviations for what is written; a segment outvotes it by writing more. No solved answers are needed."""


@dataclass(frozen=True)
class Finding:
    """What is known of a failed answer.

    Attributes:
        other_form: Whether the answer has the gold answer in another form, so that the metric is at fault.
        cut_off: Whether it was still on its way when the budget ended.
        token: Statistics of the token at which it goes wrong; None where there is none.

    """

    other_form: bool
    cut_off: bool
    token: TokenStatistics | None


def diagnose(finding: Finding, thresholds: Thresholds | None) -> Cause:
    """Cause of a failed answer: the first that applies, in the order of `CAUSES`.

    Args:
        finding: What is known of it.
        thresholds: Without them only the answer's text decides.

    >>> token = TokenStatistics(attended=0.5, written=4.0, outvoted=0.8, prior_wins=False, matched=20)
    >>> diagnose(Finding(False, False, token), Thresholds(attended=0.1, written=2.0, outvoted=0.6))
    'context'

    """
    if finding.other_form:
        return "other_form"
    if finding.cut_off:
        return "cut_off"
    if finding.token is None or thresholds is None or finding.token.matched < FEWEST_MATCHED:
        return "undecided"
    return _cause_at(finding.token, thresholds)


def _cause_at(token: TokenStatistics, thresholds: Thresholds) -> Cause:
    if token.follows:
        return "follows"
    if token.attended <= thresholds.attended:
        return "not_attended"
    if token.written <= thresholds.written:
        return "not_written"
    if token.prior_wins:
        return "knowledge"
    return "context" if token.outvoted >= thresholds.outvoted else "undecided"


def calibrate(solved: Sequence[TokenStatistics], tail: float) -> Thresholds | None:
    """Thresholds from solved answers: a share `tail` of them is beyond each; None for fewer than `FEWEST_SOLVED`.

    The evidence must be attended and written more than in matched segments (a threshold of 0 at least), and be outvoted
    by a segment that writes at least as much (½ at least).

    Args:
        solved: Statistics of the token at which each solved answer came nearest to another one.
        tail: Share of solved answers beyond a threshold.

    >>> solved = [TokenStatistics(n / 100, n / 10, n / 100, False, 20) for n in range(101)]
    >>> calibrate(solved, tail=0.1)
    Thresholds(attended=0.1, written=1.0, outvoted=0.9)

    """
    usable = [token for token in solved if token.matched >= FEWEST_MATCHED]
    if len(usable) < FEWEST_SOLVED:
        return None
    attended = np.quantile([token.attended for token in usable], tail)
    written = np.quantile([token.written for token in usable], tail)
    outvoted = np.quantile([token.outvoted for token in usable], 1 - tail)
    return Thresholds(*(round(float(value), 9) for value in (max(0, attended), max(0, written), max(0.5, outvoted))))
