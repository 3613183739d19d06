"""Causes of failed answers from their trials, and how often each intervention rescues answers of each cause."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from probe.diagnosis.causes import CAUSES, Cause, Finding, Thresholds, calibrate, diagnose
from probe.diagnosis.experiment.reported import reported_summary, supported_causes
from probe.diagnosis.statistics import TokenStatistics
from probe.diagnosis.trial import INTERVENTIONS
from probe.metrics import Estimate, holm, wilson
from probe.results import Trial

OUTCOMES = ("rescued", "changed", "exact")
"""Whether the right token is now the choice; whether the wrong one no longer is; whether the answer is right."""


AT_TOKEN: tuple[Cause, ...] = ("not_attended", "not_written", "knowledge", "context", "undecided")
"""Causes of mistakes at the critical token itself. An answer that is right or wrong for another reason is not rescued
there, so that with it any cause of these would seem to be rescued more."""


@dataclass(frozen=True)
class Claim:
    """What an intervention should do to answers of some causes, against other failures.

    Attributes:
        causes: The causes.
        intervention, outcome: What is counted.
        more: Whether it should happen more often, or less.
        among: Causes that it is compared within.

    """

    causes: tuple[Cause, ...]
    intervention: str
    outcome: str
    more: bool
    among: tuple[Cause, ...] = AT_TOKEN


CLAIMS = (
    Claim(("not_attended",), "only_evidence", "rescued", more=True),
    Claim(("context",), "only_evidence", "rescued", more=True),
    Claim(("knowledge",), "only_evidence", "rescued", more=False),
    Claim(("context",), "without_segment", "rescued", more=True),
    Claim(("not_attended",), "without_evidence", "changed", more=False),
    Claim(("knowledge", "context"), "amplified", "rescued", more=True),
    Claim(("follows",), "only_evidence", "rescued", more=False, among=tuple(CAUSES)),
    Claim(("follows",), "without_segment", "rescued", more=False, among=tuple(CAUSES)),
    Claim(("follows",), "amplified", "rescued", more=False, among=tuple(CAUSES)),
)
"""What the causes mean, as far as interventions can test it."""


def statistics_of(trial: Trial) -> TokenStatistics | None:
    """Statistics of a trial's critical token; None where there is none.

    >>> token = {"attended": 0.5, "written": None, "outvoted": 0.8, "prior_wins": False, "matched": 1, "follows": False}
    >>> statistics_of({"token": token})
    TokenStatistics(attended=0.5, written=nan, outvoted=0.8, prior_wins=False, matched=1, follows=False)

    """
    if trial["token"] is None:
        return None
    names = ("attended", "written", "outvoted")
    # A statistic that is not defined is null in its trial.
    attended, written, outvoted = (
        float("nan") if trial["token"][name] is None else trial["token"][name] for name in names
    )
    prior_wins, matched, follows = (trial["token"][name] for name in ("prior_wins", "matched", "follows"))
    return TokenStatistics(attended, written, outvoted, prior_wins, matched, follows)


def training_thresholds(trials: Sequence[Trial], tail: float) -> Thresholds | None:
    """Thresholds from the solved answers of training prompts (see `calibrate`)."""
    solved = [statistics_of(trial) for trial in trials if trial["training"] and not trial["failed"]]
    return calibrate([token for token in solved if token is not None], tail)


def with_causes(trials: Sequence[Trial], thresholds: Thresholds | None) -> list[Trial]:
    """Trials with the cause of each failed answer; null for solved ones."""
    found = []
    for trial in trials:
        finding = Finding(trial["other_form"], trial["cut_off"], statistics_of(trial))
        found.append({**trial, "cause": diagnose(finding, thresholds) if trial["failed"] else None})
    return found


def summary(trials: Sequence[Trial], supported: Collection[Cause] = ()) -> dict[str, Any]:
    """Counts of causes, outcomes of interventions on held-out failures by cause, and the claims tested.

    Args:
        trials: With causes.
        supported: Causes with a supported claim in a former run, beside those of this one.

    """
    failed = [trial for trial in trials if trial["failed"]]
    held_out = [trial for trial in failed if not trial["training"]]
    claims = claim_outcomes(held_out)
    own = [cause for cause in CAUSES if cause in {*supported, *supported_causes(claims)}]
    return {
        "answers": len(trials),
        "solved": len(trials) - len(failed),
        "failed": len(failed),
        "held_out_failures": len(held_out),
        "causes": {"all": _counts(failed), "held_out": _counts(held_out)},
        "shares": {cause: _rate([trial["cause"] == cause for trial in held_out]).as_dict() for cause in CAUSES},
        "interventions": {cause: _rates(held_out, [cause]) for cause in CAUSES} | {"all": _rates(held_out, CAUSES)},
        "claims": claims,
        "supported": own,
        "reported": reported_summary(failed, held_out, own, _rates),
    }


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    counted = Counter(trial["cause"] for trial in trials)
    return {cause: counted[cause] for cause in CAUSES}


def _rates(trials: Sequence[Trial], causes: Collection[str]) -> dict[str, Any]:
    """Rate of each outcome of each intervention over the trials of some causes, with Wilson's interval."""
    return {
        name: {outcome: _rate(_values(trials, causes, name, outcome)).as_dict() for outcome in OUTCOMES}
        for name in INTERVENTIONS
    }


def _values(trials: Sequence[Trial], causes: Collection[str], intervention: str, outcome: str) -> list[bool]:
    """An outcome of the trials of some causes that have it."""
    found = [trial["interventions"].get(intervention, {}).get(outcome) for trial in trials if trial["cause"] in causes]
    return [value for value in found if value is not None]


def _rate(values: Sequence[bool]) -> Estimate:
    share = sum(values) / len(values) if values else float("nan")
    return Estimate(share, *wilson(sum(values), len(values)), len(values))


def claim_outcomes(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Each claim of `CLAIMS`: the rate among its causes, and what sorting the same failures at random gives.

    With labels permuted, the number of outcomes among the n failures of a cause is hypergeometric: all permutations are
    taken together, and the p-value is Fisher's exact two-sided one. Holm's correction is over the claims.

    Args:
        trials: Held-out failures with their causes.

    """
    found = [_tested(claim, trials) for claim in CLAIMS]
    tested = [record for record in found if record["p"] is not None]
    for record, p in zip(tested, holm([record["p"] for record in tested]), strict=True):
        record["p_holm"] = p
        expected = record["rate"]["value"] > record["random"]
        record["supported"] = p < 0.05 and expected == record["more"]
    return found


def _tested(claim: Claim, trials: Sequence[Trial]) -> dict[str, Any]:
    mine = _values(trials, claim.causes, claim.intervention, claim.outcome)
    rest = _values(trials, set(claim.among) - set(claim.causes), claim.intervention, claim.outcome)
    record = {**asdict(claim), "causes": list(claim.causes), "among": list(claim.among), "rate": _rate(mine).as_dict()}
    record |= {"rest": _rate(rest).as_dict(), "p": None, "p_holm": None, "supported": None}
    if not mine or not rest:
        return record | {"random": None, "random_low": None, "random_high": None}
    hits, total = sum(mine) + sum(rest), len(mine) + len(rest)
    low, high = stats.hypergeom(total, hits, len(mine)).ppf([0.025, 0.975]) / len(mine)
    counts = [[sum(mine), len(mine) - sum(mine)], [sum(rest), len(rest) - sum(rest)]]
    return record | {
        "random": hits / total,
        "random_low": float(low),
        "random_high": float(high),
        "p": float(stats.fisher_exact(counts).pvalue),
    }
