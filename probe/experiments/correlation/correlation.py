"""Claim 3 on a score store: the hidden state predicts the heads of k steps later (Figs. 4 and 8, A.4)."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning import LightningModule

from datamodules import Pass, ResampledSequences, Rows
from extract.errors import UserError
from extract.utils import PositiveInt, PositiveShare, Repetitions, without_autocast
from probe.experiments.correlation.cca import CCASettings, JointMoments
from probe.experiments.correlation.held_out_cca import HeldOutCCA
from probe.experiments.correlation.moments import PairedMoments
from probe.experiments.correlation.plots import plot_correlations
from probe.experiments.correlation.step_number import StepwiseCCA, with_step
from probe.experiments.correlation.table import correlation_records, correlation_table
from probe.results import COMPONENT_1, TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Correlation(LightningModule):
    """CCA of hidden states and the scores k steps later, fitted on training samples, evaluated on others.

    Everything follows from moments: one pass over the training samples gives the fits, one over the evaluation samples
    the held-out correlations, one for each permutation of a null the correlations without any relation, and one for
    each group of samples the jackknife's intervals. Beside hidden states stand the step number alone, one-hot in their
    place, and hidden states within a step (`StepwiseCCA`).

    Args:
        in_features, num_heads: Linked from the store.
        offsets: Largest k (A.4: 10).
        components: Canonical components (A.4: 50), or as many as the smaller side has, which the table then reports.
        hidden_variance, score_variance: Shares of variance that PCA retains (A.4: 0.95, 0.99).
        scaling: What is min-max scaled to [0, 1] before PCA: the `scores` alone (A.4), or `both` sides.

    """

    experiment = "correlation"

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        offsets: Repetitions = 10,
        components: PositiveInt = 50,
        hidden_variance: PositiveShare = 0.95,
        score_variance: PositiveShare = 0.99,
        scaling: Literal["scores", "both"] = "scores",
    ) -> None:
        super().__init__()
        self.in_features, self.num_heads = in_features, num_heads
        self.offsets, self.components = offsets, components
        self.variances, self.scaling = (hidden_variance, score_variance), scaling
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Check settings and data before anything is read."""
        del stage
        if not isinstance(getattr(self.trainer, "datamodule", None), ResampledSequences):
            raise UserError("correlation is measured on datamodules.ResampledSequences: set data.class_path to it")
        if self.offsets < 0 or self.components < 1 or not all(0 < share <= 1 for share in self.variances):
            raise UserError(
                f"model: offsets {self.offsets} ≥ 0, components {self.components} ≥ 1 and variances "
                f"{self.variances} within 0 and 1 are wanted"
            )
        self._passes = self._data.passes()
        columns, rows = self._data.part_rows("train")
        self._steps = int(columns.step[rows].max()) + 1
        # The one-hot columns are centred at 0.
        x, y = (torch.cat([centre, torch.zeros(self._steps)]) for centre in self._data.centres())
        self._moments = PairedMoments(len(x), len(y), self.offsets, x, y)
        settings = CCASettings(self.components, *self.variances, scale_x=self.scaling == "both")
        self._cca = HeldOutCCA(StepwiseCCA(self.in_features, self.num_heads, settings))

    @property
    def _data(self) -> ResampledSequences:
        data: ResampledSequences = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def test_step(self, batch: Rows, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the moments of its pass; every process has at least one, so a pass ends on all alike."""
        if batch_idx == 0 and dataloader_idx > 0:
            self._end_pass(self._passes[dataloader_idx - 1])
        with without_autocast():
            x, y = (with_step(side, batch.step, self._steps) for side in (batch.hidden, batch.scores))
            self._moments.to(self.device).update(x, y, batch.sample)

    def _end_pass(self, which: Pass) -> None:
        moments = self._moments.compute()
        if which == Pass("train"):
            self._refuse_constant(moments)
        self._cca.add(which, moments)
        self._moments.reset()

    def _refuse_constant(self, moments: list[JointMoments | None]) -> None:
        """Refuse scores that are the same at every step, as after the first pass is known."""
        if not any(one is not None and (one.y_range[: self.num_heads] > 0).any() for one in moments):
            raise UserError(
                f"{self._data.store_path}: no head's {self._data.target} score varies over the training rows, so there "
                "is nothing to correlate; extract longer prompts, or another LLM"
            )

    def on_test_epoch_end(self) -> None:
        """The last pass, then all metrics with their intervals."""
        self._end_pass(self._passes[-1])
        data = self._data
        self.results = {
            "store": data.test_store.fingerprint,
            "llm": data.identity.as_dict(),
            "target": data.target,
            "evaluation": data.test_path or data.evaluation,
            "split": data.split_record(),
            "permutations": data.permutations,
            "groups": data.groups,
            "seed": data.resampling_seed,
            "samples": {part: self._samples(part) for part in ("train", "evaluation")},
            "hidden_variance": self.variances[0],
            "score_variance": self.variances[1],
            "scaling": self.scaling,
            "paper_component_1": dict(enumerate(COMPONENT_1[data.target])),
            "offsets": [self._cca.offset(k) for k in range(self.offsets + 1)],
        }
        for record in self.records():
            if record["value"] is not None:
                self.log(f"{record['kind']}/{record['metric']}/k{record['k']:02d}", record["value"], sync_dist=True)

    def _samples(self, part: Literal["train", "evaluation"]) -> int:
        columns, rows = self._data.part_rows(part)
        return len(np.unique(columns.sample[rows]))

    def records(self) -> list[dict[str, Any]]:
        """One row for each offset, kind and metric."""
        return correlation_records(self.results)

    def table(self) -> TextTable:
        """Component 1 and the means of all kinds at each k, beside the paper."""
        return correlation_table(self.results, self.components)

    def plots(self) -> "dict[str, Figure]":
        """Fig. 4 / 8, with held-out samples and nulls beside the fit."""
        return {"correlation_over_offsets": plot_correlations(self.results)}
