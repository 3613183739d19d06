"""CCA of every offset, evaluated in sample, on held-out samples and against nulls, from the moments of each pass."""

from collections import defaultdict
from typing import Any

import numpy as np

from datamodules import Pass
from probe.experiments.correlation.cca import (
    Canonical,
    JointMoments,
    Matrix,
    Vector,
    Whitening,
    correlations_on,
    summary,
)
from probe.experiments.correlation.step_number import StepwiseCCA
from probe.metrics import jackknife

METRICS = ("component_1", "top_10_mean", "top_50_mean")
KINDS = ("in_sample", "held_out", "step_number", "within_step", "null_shifted", "null_step")
"""Hidden states on the fitting samples and on held-out samples; held out, the step number alone in their place, and
hidden states within a step; the fits of both nulls."""
DIFFERENCE = "held_out_minus_step_number"
"""Held-out correlation of hidden states minus that of the step number alone, on the same samples."""
Moments = list[JointMoments | None]
"""One for each offset; None beyond the longest sample."""
Fits = dict[str, Canonical]
"""Fits of one offset by what is analysed; empty beyond the longest sample."""


class HeldOutCCA:
    """One fit per offset on training samples, and its correlations there and on evaluation samples.

    A null has the hidden states of the training samples, so that their principal components are computed once for both.

    It takes the passes of `ResampledSequences` in their order: training samples, evaluation samples, each permutation
    of the nulls, then for each group of the jackknife its training samples and its evaluation samples.

    Args:
        cca: The analysis.

    """

    def __init__(self, cca: StepwiseCCA) -> None:
        self.cca = cca
        self._whole: dict[str, Moments] = {}
        self._fits: list[Fits] = []
        self._hidden_maps: list[Matrix | None] = []
        """Whitening maps of the training samples' hidden states at each offset."""
        self._fits_without_group: list[Fits] = []
        self._found: dict[str, list[Any]] = defaultdict(list)

    def add(self, which: Pass, moments: Moments) -> None:
        """Take the moments of a pass, offset by offset."""
        if which.null is not None:  # fitted and evaluated on the same permuted pairs
            fits = [self._fit_null(k, part) for k, part in enumerate(moments)]
            self._found[f"null_{which.null}"].append([_in_sample(fit) for fit in fits])
        elif which.group is not None:
            self._leave_out(which, moments)
        else:
            self._whole[which.part] = moments
            if which.part == "train":
                maps = [None if part is None else self.cca.whitening(part) for part in moments]
                self._hidden_maps = [None if one is None else one.x for one in maps]
                self._fits = [self._fit(part, known) for part, known in zip(moments, maps, strict=True)]
            else:
                self._found["in_sample"] = [_in_sample(fits) for fits in self._fits]
                for kind, values in _evaluated(self._fits, moments).items():
                    self._found[kind] = values

    def _fit_null(self, k: int, moments: JointMoments | None) -> Fits:
        """Fit of permuted pairs. Where permuted scores leave out other rows, their hidden states are others."""
        if moments is None:
            return {}
        whole = self._whole["train"][k]
        same = whole is not None and self.cca.same_hidden(moments, whole)
        return {
            "held_out": self.cca.of_hidden(moments, self.cca.whitening(moments, self._hidden_maps[k] if same else None))
        }

    def _fit(self, moments: JointMoments | None, known: Whitening | None = None) -> Fits:
        if moments is None:
            return {}
        cca, maps = self.cca, known or self.cca.whitening(moments)
        fits = (cca.of_hidden(moments, maps), cca.of_step(moments, maps), cca.within_step(moments))
        return dict(zip(("held_out", "step_number", "within_step"), fits, strict=True))

    def _leave_out(self, which: Pass, moments: Moments) -> None:
        """Jackknife replicates: fit without the group's training samples, evaluate without its evaluation samples."""
        rest = [
            whole if part is None or whole is None else whole.without(part)
            for whole, part in zip(self._whole[which.part], moments, strict=True)
        ]
        if which.part == "train":
            self._fits_without_group = [self._fit(part) for part in rest]
            self._found["in_sample_left_out"].append([_in_sample(fits) for fits in self._fits_without_group])
        else:
            for kind, values in _evaluated(self._fits_without_group, rest).items():
                self._found[f"{kind}_left_out"].append(values)

    def offset(self, k: int) -> dict[str, Any]:
        """Everything about one offset, in plain values."""
        fits, sides = self._fits[k], {part: self._whole[part][k] for part in ("train", "evaluation")}
        found = {
            "k": k,
            "pairs": {part: 0 if side is None else side.count for part, side in sides.items()},
            **{"components": 0, "hidden_components": 0, "score_components": 0, "correlations": []},
        }
        if not fits or not len(fits["held_out"].correlations):
            return found
        fit = fits["held_out"]
        return found | {
            "components": len(fit.correlations),
            "hidden_components": fit.x_components,
            "score_components": fit.y_components,
            "correlations": fit.correlations.tolist(),
            **{kind: self._estimates(kind, k) for kind in (*KINDS, DIFFERENCE)},
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


def _in_sample(fits: Fits) -> Vector:
    known = fits and len(fits["held_out"].correlations)
    return summary(fits["held_out"].correlations) if known else np.full(3, np.nan)


def _evaluated(fits: list[Fits], moments: Moments) -> dict[str, list[Vector]]:
    """Held-out correlations of every kind at each offset, and the difference of hidden states and step number."""
    found = {
        kind: [_held_out(fit.get(kind), part) for fit, part in zip(fits, moments, strict=True)]
        for kind in ("held_out", "step_number", "within_step")
    }
    pairs = zip(found["held_out"], found["step_number"], strict=True)
    return found | {DIFFERENCE: [hidden - step for hidden, step in pairs]}


def _held_out(fit: Canonical | None, moments: JointMoments | None) -> Vector:
    if fit is None or moments is None or not len(fit.correlations):
        return np.full(3, np.nan)
    return summary(correlations_on(fit, moments))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
