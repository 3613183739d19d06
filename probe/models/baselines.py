"""Baselines of probes: later scores predicted without the hidden state, from step number and last known heads."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from datamodules import Rows, ScoreRows
from extract.scores import REASONING_THRESHOLD, Target, is_dynamic
from probe.heads import StepSums, StepTable
from probe.metrics import best_threshold
from probe.models.ridge import LinearMap, ridge_map, spaced_rows

KINDS = ("static", "step", "repeat", "transition", "heads")
"""The baselines, from the weakest knowledge to the strongest."""
Known = Float[Tensor, "row head"]
"""Last known scores (`Rows.known`): of the current step, or for the current step's heads of the step before."""


@dataclass(frozen=True)
class Baselines:
    """Predictions of one offset's scores from the step number and the last known heads, all from training rows.

    `static`: each head's mean score. `step`: its mean at the step number (`StepTable`). `repeat`: its last known score.
    `transition`: its mean at the step number, given whether it was dynamic when last known. `heads`: ridge regression
    from the last known scores of all heads and the one-hot step number. A head without a known score, as at a first
    step that has none before it, counts as known by its mean, and for `transition` has its mean at the step number.

    Attributes:
        target: The score.
        threshold: Scores from here on, other than copy-paste scores, make a head dynamic.
        static: Mean score of each head.
        step: Means by step number.
        active, inactive: Means by step number of heads that were dynamic, and were not, when last known.
        heads: The ridge regression; None where no training or validation row has a score of every head.
        thresholds: Decision thresholds of copy-paste scores by kind: of the highest F1 on the validation split, and ½
            for `repeat`, whose scores are 0 or 1.

    """

    target: Target
    threshold: float
    static: Float[Tensor, "head"]
    step: StepTable
    active: StepTable
    inactive: StepTable
    heads: LinearMap | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the baselines that there are."""
        return KINDS if self.heads is not None else KINDS[:-1]

    def predict(self, kind: str, step: Int[Tensor, "row"], known: Known) -> Float[Tensor, "row head"]:
        """Scores of one of the `kinds`.

        Args:
            kind: Name of the baseline.
            step: Step number of each row.
            known: Last known scores.

        """
        if kind == "static":
            return self.static.expand(known.shape)
        if kind == "step":
            return self.step.predict(step)
        if kind == "repeat":
            return self._filled(known)
        if kind == "transition":
            dynamic = is_dynamic(known, self.target, self.threshold)
            given = torch.where(dynamic, self.active.predict(step), self.inactive.predict(step))
            return torch.where(known.isfinite(), given, self.step.predict(step))
        assert self.heads is not None
        return self.heads(self.features(step, known))

    def features(self, step: Int[Tensor, "row"], known: Known) -> Float[Tensor, "row feature"]:
        """Inputs of `heads`: known scores, then the one-hot step number, none for one beyond the training rows'."""
        steps = len(self.step.means)
        return torch.cat([self._filled(known), F.one_hot(step.clamp(max=steps), steps + 1)[:, :steps].float()], dim=1)

    def _filled(self, known: Known) -> Known:
        return torch.where(known.isfinite(), known, self.static)

    def as_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Baselines":
        """Restore what `as_dict` gave."""
        tables = {name: StepTable(**values[name]) for name in ("step", "active", "inactive")}
        heads = None if values["heads"] is None else LinearMap(**values["heads"])
        return cls(**{**values, **tables, "heads": heads})


def by_offset(rows: Rows) -> Iterator[tuple[Float[Tensor, "row head"], Known]]:
    """Scores to predict and last known scores of each offset of a batch; single offsets have one pair."""
    if rows.scores.ndim == 2:
        yield rows.scores, rows.known
        return
    for k in range(rows.scores.shape[1]):
        yield rows.scores[:, k], known_at(k, rows.scores[:, 0], rows.known)


def known_at(k: int, current: Known, before: Known) -> Known:
    """Last known scores for an offset: those of the current step, which for k = 0 are to be predicted."""
    return current if k else before


def fit_baselines(rows: ScoreRows, threshold: float = REASONING_THRESHOLD, limit: int = 30_000) -> list[Baselines]:
    """The baselines of each offset of a data module, from its training rows in one pass.

    Args:
        rows: The data; `OffsetRows` has several offsets, any other one.
        threshold: Scores from here on, other than copy-paste scores, make a head dynamic.
        limit: Most rows of which `heads` is fitted, and most that choose its strength.

    """
    sums: list[tuple[StepSums, StepSums, StepSums]] = []
    for chunk in rows.training_chunks():
        for k, (scores, known) in enumerate(by_offset(chunk)):
            if k == len(sums):
                sums.append((StepSums(), StepSums(), StepSums()))
            dynamic, missing = is_dynamic(known, rows.target, threshold), ~known.isfinite()
            every, active, inactive = sums[k]
            every.update(scores, chunk.step)
            active.update(scores.masked_fill(~dynamic, torch.nan), chunk.step)
            inactive.update(scores.masked_fill(dynamic | missing, torch.nan), chunk.step)
    found = []
    for every, active, inactive in sums:
        step = every.table()
        found.append(Baselines(rows.target, threshold, step.overall, step, active.table(), inactive.table()))
    train, val = spaced_rows(rows.with_known("train"), limit), rows.with_known("val")
    few, every_row = spaced_rows(val, limit), val.read(val.rows)
    parts = zip(found, by_offset(train), by_offset(few), by_offset(every_row), strict=True)
    return [
        _with_thresholds(_with_heads(one, (train, *fitted), (few, *chosen)), every_row.step, *evaluated)
        for one, fitted, chosen, evaluated in parts
    ]


def _with_heads(one: Baselines, train: tuple[Rows, Tensor, Known], val: tuple[Rows, Tensor, Known]) -> Baselines:
    """The baselines of an offset with its ridge regression."""
    sides = [_arrays(one, *part) for part in (train, val)]
    return replace(one, heads=ridge_map(*sides[0], *sides[1])) if all(len(x) for x, _ in sides) else one


def _with_thresholds(one: Baselines, step: Tensor, scores: Tensor, known: Known) -> Baselines:
    """The baselines of an offset with the thresholds of a classifier, from the validation rows."""
    if one.target != "copy_paste":
        return one
    rows = scores.isfinite().any(dim=1)
    labels, step, known = scores[rows] > 0, step[rows], known[rows]
    chosen = {kind: best_threshold(one.predict(kind, step, known), labels) for kind in one.kinds if kind != "repeat"}
    return replace(one, thresholds={**chosen, "repeat": 0.5})


def _arrays(one: Baselines, rows: Rows, scores: Tensor, known: Known) -> tuple[Any, Any]:
    """Features and scores in float64 of the rows that have a score of every head."""
    complete = scores.isfinite().all(dim=1)
    inputs = one.features(rows.step[complete], known[complete])
    return inputs.double().numpy(), scores[complete].double().numpy()
