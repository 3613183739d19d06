"""Prediction of failure from the first tokens of an answer, before it ends: AUROC by prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from probe.diagnosis.decoding import SIGNALS
from probe.metrics import Bootstrap, Estimate, bootstrap_weights, percentile_interval
from probe.results import Trial

FOLDS = 5
HEADS, OUTPUT = SIGNALS[2:], SIGNALS[:2]
Features = Float[np.ndarray, "prompt feature"]
Scores = Float[np.ndarray, "prompt"]
Failed = Bool[np.ndarray, "prompt"]


def predictors(trials: Sequence[Trial], early: int) -> dict[str, Features]:
    """Features of each predictor: signals at the first tokens, or where the evidence is.

    An answer shorter than `early` tokens repeats its last one. A predictor without values for all prompts is left out.

    Args:
        trials: The answers.
        early: First tokens.

    """
    named = {"heads": HEADS, "output entropy": ("entropy",), "output": OUTPUT, "heads and output": SIGNALS}
    found = {name: np.array([_signals(trial, keys, early) for trial in trials]) for name, keys in named.items()}
    places = np.array([[trial["length"], trial["depth"]] for trial in trials], dtype=np.float64)
    found["length × depth"] = np.column_stack([places, places.prod(axis=1)])
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _signals(trial: Trial, names: Sequence[str], early: int) -> list[float]:
    found = []
    for name in names:
        values = trial["signals"][name][:early]
        found += [*values, *[values[-1]] * (early - len(values))]
    return found


def predict_failure(trials: Sequence[Trial], early: int, bootstrap: Bootstrap) -> dict[str, Any] | None:
    """AUROC of failure for each predictor, with differences from the heads; None with too few answers of either kind.

    Logistic regression on standardized features; each prompt is scored by a model that was not fitted on it
    (stratified folds, all answers to a prompt in one).

    Args:
        trials: The answers, failed and solved.
        early: First tokens that are used.
        bootstrap: Over prompts, for intervals and p-values; its seed is that of the folds, too.

    """
    failed = np.array([trial["failed"] for trial in trials], dtype=np.bool_)
    if min(failed.sum(), (~failed).sum()) < FOLDS:
        return None
    groups = [trial["id"] for trial in trials]
    scores = {
        name: out_of_fold(features, failed, groups, bootstrap.seed)
        for name, features in predictors(trials, early).items()
    }
    weights = bootstrap_weights(len(failed), bootstrap.resamples, bootstrap.seed)
    resampled = {name: np.array([auroc(values, failed, one) for one in weights]) for name, values in scores.items()}
    values = {name: auroc(one, failed) for name, one in scores.items()}
    return {
        "answers": len(failed),
        "failed": int(failed.sum()),
        "tokens": early,
        "folds": FOLDS,
        "seed": bootstrap.seed,
        "auroc": {
            name: Estimate(values[name], *percentile_interval(resampled[name].tolist()), len(failed)).as_dict()
            for name in scores
        },
        "differences": {
            name: _difference(values["heads"] - values[name], resampled["heads"] - resampled[name])
            for name in scores
            if name != "heads"
        },
    }


def _difference(value: float, resampled: Float[np.ndarray, "resample"]) -> dict[str, float | None]:
    """AUROC of the heads less another one, its interval, and twice the smaller share of resamples on one side of 0."""
    known = resampled[~np.isnan(resampled)]
    low, high = percentile_interval(known.tolist())
    sides = ((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * (int(min(sides)) + 1) / (len(known) + 1))
    return {"difference": value, "low": low, "high": high, "p": p}


def out_of_fold(features: Features, failed: Failed, groups: Sequence[str], seed: int) -> Scores:
    """Log-odds of failure of each prompt, by a model fitted on the other folds.

    Args:
        features: Of each prompt.
        failed: Whether its answer failed.
        groups: Prompts of the same group share a fold.
        seed: Of the folds.

    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found, folds = np.zeros(len(failed)), StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    for training, held_out in folds.split(features, failed, groups):
        if len(set(failed[training].tolist())) == 1:  # as likely as not: nothing to fit
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(features[training], failed[training])
        found[held_out] = model.decision_function(features[held_out])
    return found


def auroc(scores: Scores, failed: Failed, weights: Scores | None = None) -> float:
    """Area under the ROC curve: the probability that a failed answer has the higher score; ties count half.

    NaN without answers of both kinds.

    Args:
        scores: Of each prompt.
        failed: Whether its answer failed.
        weights: How often each prompt counts; by default once.

    >>> auroc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.875

    """
    from sklearn.metrics import roc_auc_score

    counts = np.ones(len(scores)) if weights is None else weights
    if not counts[failed].sum() or not counts[~failed].sum():
        return float("nan")
    return float(roc_auc_score(failed, scores, sample_weight=counts))
