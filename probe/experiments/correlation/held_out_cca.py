"""CCA of every offset, evaluated in sample, on held-out samples and against nulls, from the moments of each pass."""

from collections import defaultdict
from typing import Any

import numpy as np

from datamodules import Pass
from probe.experiments.correlation.cca import (
    Canonical,
    JointMoments,
    Vector,
    canonical,
    correlations_on,
    summary,
)
from probe.metrics import jackknife

METRICS = ("component_1", "top_10_mean", "top_50_mean")
KINDS = ("in_sample", "held_out", "null_shifted", "null_step")
"""Correlations on the fitting samples, on held-out samples, and of the fits of both nulls."""
Moments = list[JointMoments | None]
"""One for each offset; None beyond the longest sample."""


class HeldOutCCA:
    """One fit per offset on training samples, and its correlations there and on evaluation samples.

    It takes the passes of `ResampledSequences` in their order: training samples, evaluation samples, each permutation
    of the nulls, then for each group of the jackknife its training samples and its evaluation samples.

    Args:
        components: Canonical components to retain.
        x_variance, y_variance: Shares of variance that PCA retains.

    """

    def __init__(self, components: int, x_variance: float, y_variance: float) -> None:
        self.components, self.variances = components, (x_variance, y_variance)
        self._whole: dict[str, Moments] = {}
        self._fits: list[Canonical | None] = []
        self._fits_without_group: list[Canonical | None] = []
        self._found: dict[str, list[Any]] = defaultdict(list)

    def add(self, which: Pass, moments: Moments) -> None:
        """Take the moments of a pass, offset by offset."""
        if which.null is not None:  # fitted and evaluated on the same permuted pairs
            self._found[f"null_{which.null}"].append([_in_sample(self._fit(part)) for part in moments])
        elif which.group is not None:
            self._leave_out(which, moments)
        else:
            self._whole[which.part] = moments
            if which.part == "train":
                self._fits = [self._fit(part) for part in moments]
            else:
                self._found["in_sample"] = [_in_sample(fit) for fit in self._fits]
                self._found["held_out"] = self._evaluated(self._fits, moments)

    def _fit(self, moments: JointMoments | None) -> Canonical | None:
        return None if moments is None else canonical(moments, self.components, *self.variances)

    def _evaluated(self, fits: list[Canonical | None], moments: Moments) -> list[Vector]:
        return [_held_out(fit, part) for fit, part in zip(fits, moments, strict=True)]

    def _leave_out(self, which: Pass, moments: Moments) -> None:
        """Jackknife replicates: fit without the group's training samples, evaluate without its evaluation samples."""
        rest = [
            whole if part is None or whole is None else whole.without(part)
            for whole, part in zip(self._whole[which.part], moments, strict=True)
        ]
        if which.part == "train":
            self._fits_without_group = [self._fit(part) for part in rest]
            self._found["in_sample_left_out"].append([_in_sample(fit) for fit in self._fits_without_group])
        else:
            self._found["held_out_left_out"].append(self._evaluated(self._fits_without_group, rest))

    def offset(self, k: int) -> dict[str, Any]:
        """Everything about one offset, in plain values."""
        fit, sides = self._fits[k], {part: self._whole[part][k] for part in ("train", "evaluation")}
        known = fit is not None and len(fit.correlations) > 0
        return {
            "k": k,
            "pairs": {part: 0 if side is None else side.count for part, side in sides.items()},
            "components": len(fit.correlations) if fit is not None else 0,
            "hidden_components": fit.x_components if fit is not None else 0,
            "score_components": fit.y_components if fit is not None else 0,
            "correlations": fit.correlations.tolist() if fit is not None else [],
            **{kind: self._estimates(kind, k) for kind in KINDS if known},
        }

    def _estimates(self, kind: str, k: int) -> dict[str, dict[str, float | None]]:
        """Value, low and high of each metric: a jackknife interval; of a null, its range over permutations."""
        if kind.startswith("null"):
            permuted = np.array([permutation[k] for permutation in self._found[kind]])
            if not len(permuted):
                return {}
            value, low, high = permuted.mean(axis=0), permuted.min(axis=0), permuted.max(axis=0)
        else:
            value = self._found[kind][k]
            left_out = np.array([group[k] for group in self._found[f"{kind}_left_out"]])
            low, high = jackknife(value, left_out) if len(left_out) else (np.full(3, np.nan),) * 2
        return {
            name: {"value": _plain(value[i]), "low": _plain(low[i]), "high": _plain(high[i])}
            for i, name in enumerate(METRICS)
        }


def _in_sample(fit: Canonical | None) -> Vector:
    return np.full(3, np.nan) if fit is None or not len(fit.correlations) else summary(fit.correlations)


def _held_out(fit: Canonical | None, moments: JointMoments | None) -> Vector:
    if fit is None or moments is None or not len(fit.correlations):
        return np.full(3, np.nan)
    return summary(correlations_on(fit, moments))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
