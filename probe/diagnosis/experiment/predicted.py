"""Expected heads at critical tokens, as a probe predicted them and as they acted, in failed and in solved answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from probe.metrics import Bootstrap, Estimate, bootstrap_weights, holm, p_text, percentile_interval
from probe.results import TextTable, Trial


def predicted_summary(trials: Sequence[Trial], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Of each probe and step the mean share of expected heads that it predicted, and of those that acted.

    Whether the heads of a probe act does not depend on the step that it predicts from: that share is given once.
    Failed answers are those that are held out, solved ones those of training prompts, for both have a critical token.
    p-values are of the Mann-Whitney test between both kinds, with Holm's correction over all.

    Args:
        trials: The answers.
        bootstrap: Over answers, for intervals.

    """
    found = [(trial["failed"], one) for trial in trials if trial["failed"] != trial["training"] for one in _of(trial)]
    places = sorted({(one["probe"], one["steps"]) for _, one in found})
    first = dict(reversed(places))
    wanted = [(*place, "predicted") for place in places] + [(*place, "acted") for place in first.items()]
    records = list[dict[str, Any]]()
    for probe, steps, share in sorted(wanted, key=lambda one: (one[0], one[2] == "acted", one[1])):
        here = [(failed, one) for failed, one in found if (one["probe"], one["steps"]) == (probe, steps)]
        values = {kind: _shares(here, failed, share) for kind, failed in (("failed", True), ("solved", False))}
        records.append(
            {"probe": probe, "steps": steps, "share": share, "p": _p(values["failed"], values["solved"])}
            | {kind: _mean(some, bootstrap).as_dict() for kind, some in values.items()}
        )
    corrected = iter(holm([record["p"] for record in records if record["p"] is not None]))
    return [{**record, "p_holm": None if record["p"] is None else next(corrected)} for record in records]


def _of(trial: Trial) -> list[dict[str, int]]:
    """What probes predicted of a trial; trials of runs without probes, or of earlier versions, have nothing."""
    found: list[dict[str, int]] = (trial["token"] or {}).get("predictions", [])
    return found


def _shares(found: Sequence[tuple[bool, dict[str, int]]], failed: bool, share: str) -> list[float]:
    return [one[share] / one["expected"] for kind, one in found if kind == failed]


def _mean(values: Sequence[float], bootstrap: Bootstrap) -> Estimate:
    if not values:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    weights = bootstrap_weights(len(values), bootstrap.resamples, bootstrap.seed)
    means = [float(np.average(values, weights=one)) for one in weights]
    return Estimate(float(np.mean(values)), *percentile_interval(means), len(values))


def _p(failed: Sequence[float], solved: Sequence[float]) -> float | None:
    return float(stats.mannwhitneyu(failed, solved).pvalue) if failed and solved else None


def predicted_table(records: Sequence[dict[str, Any]]) -> TextTable:
    """Shares of expected heads in failed and solved answers.

    Args:
        records: See `predicted_summary`.

    """
    caption = (
        "mean share of the expected heads (highest mean score in the probe's training rows) [95 % bootstrap interval]; "
        "acted: they attend to the evidence most; p: Mann-Whitney"
    )
    out = TextTable("Expected heads at the critical token", ["probe", "share", "failed", "solved", "p"], caption)
    for record in records:
        before = f", {record['steps']} steps before" if record["share"] == "predicted" else ""
        cells = [
            Estimate.of(record[kind]).forms(2, 2, leading_zero=False) if record[kind]["n"] else ("",)
            for kind in ("failed", "solved")
        ]
        out.add_row(f"{record['probe'] + 1}{before}", record["share"], *cells, p_text(record))
    return out
