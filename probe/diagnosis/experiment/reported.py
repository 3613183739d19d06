"""Causes as they are reported: those that no claim supports are merged into one."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from probe.diagnosis.causes import CAUSES, Cause
from probe.results import Trial

STATED: tuple[Cause, ...] = ("other_form", "cut_off", "follows", "undecided")
"""Causes that need no claim: the answer's text has them, or the model's choice without the context does."""


def supported_causes(claims: Sequence[dict[str, Any]]) -> list[Cause]:
    """Causes of which a claim of their own is better than random sorting.

    Args:
        claims: Outcomes of claims, as results have them.

    >>> supported_causes([{"causes": ["context"], "supported": True}, {"causes": ["knowledge"], "supported": None}])
    ['context']

    """
    found = {claim["causes"][0] for claim in claims if claim["supported"] and len(claim["causes"]) == 1}
    return [cause for cause in CAUSES if cause in found]


def reported_cause(cause: Cause, supported: Collection[str]) -> Cause:
    """The cause to report: its own where it needs no claim or has a supported one, else `undecided`.

    >>> reported_cause("context", supported=["context"]), reported_cause("knowledge", supported=["context"])
    ('context', 'undecided')

    """
    return cause if cause in STATED or cause in supported else "undecided"


def with_reported(trials: Sequence[Trial], supported: Collection[str]) -> list[Trial]:
    """Trials with the reported cause of each failed answer; null for solved ones.

    Args:
        trials: With causes.
        supported: Causes with a supported claim.

    """
    return [{**trial, "reported": trial["cause"] and reported_cause(trial["cause"], supported)} for trial in trials]


Rates = Callable[[Sequence[Trial], Collection[str]], dict[str, Any]]


def reported_summary(
    failed: Sequence[Trial], held_out: Sequence[Trial], supported: Collection[str], rates: Rates
) -> dict[str, Any]:
    """Counts of reported causes, and outcomes of interventions by them.

    Args:
        failed: Failures with causes.
        held_out: Those of them that are held out.
        supported: Causes with a supported claim.
        rates: Rates of the trials of some causes.

    """
    own = [cause for cause in CAUSES if reported_cause(cause, supported) == cause]
    merged = {kind: [cause for cause in CAUSES if reported_cause(cause, supported) == kind] for kind in own}
    counts = {}
    for name, trials in (("all", failed), ("held_out", held_out)):
        counted = Counter(reported_cause(trial["cause"], supported) for trial in trials)
        counts[name] = {cause: counted[cause] for cause in own}
    return {
        **counts,
        "merged": merged["undecided"],
        "interventions": {kind: rates(held_out, causes) for kind, causes in merged.items()},
    }


def cause_rows(record: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Rows of a table of causes: label, held-out failures, outcomes of interventions.

    Reported causes come first, then what was merged into `undecided`, as the rule sorted it, then all failures. Results
    of earlier versions have causes as the rule sorted them alone.

    Args:
        record: Results of the experiment.

    """
    counts, reported = record["causes"]["held_out"], record.get("reported")
    if reported is None:
        yield from ((CAUSES[cause], counts[cause], record["interventions"][cause]) for cause in counts)
    else:
        for cause, count in reported["held_out"].items():
            yield CAUSES[cause], count, reported["interventions"][cause]
        for cause in reported["merged"]:
            yield f"  sorted as: {CAUSES[cause]}", counts[cause], record["interventions"][cause]
    yield "all", sum(counts.values()), record["interventions"]["all"]
