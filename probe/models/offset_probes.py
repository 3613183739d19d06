"""Claim 3 with probes instead of linear maps: a probe for the heads of each later step, all trained together."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from datamodules import OffsetRows, Rows
from extract.errors import UserError
from extract.scores import Target
from extract.utils import NonNegativeInt, PositiveFloat, PositiveInt, ShareBelowOne, without_autocast
from probe.metrics import Estimate, GatheredRows, RankedDecisions, RegressionSums, best_threshold
from probe.models.base import Probe
from probe.models.classifier import ProbeClassifier
from probe.models.plots import plot_offsets
from probe.models.regressor import ProbeRegressor
from probe.models.training_record import TrainedOnRows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PREDICTORS = ("probe", "static", "repeat")
"""What is evaluated at each k: the probe, each head's training mean, and the current step's true scores."""
PLOTTED_METRICS = {"copy_paste": ("f1", "auprc"), "reasoning": ("r2_variance_weighted", "top_overlap")}
"""Metrics of the table and the plot against k, by target."""


class OffsetProbes(TrainedOnRows):
    """One probe for each offset k: classifiers of Eq. 1, or regressors of Eq. 2, from the same hidden states.

    They share batches, learning-rate schedule and selected epoch (both by the mean of their validation losses). Each
    has its own weights, gradient clipping and threshold.

    Args:
        in_features: Hidden size of the LLM, linked from the store.
        num_heads: Heads of the LLM, linked from the store.
        num_offsets: Largest k, linked from the data.
        target: The score, linked from the data.
        hidden: Widths of the hidden layers of each probe (A.5: 8192, 4096, 4096).
        dropout: After each hidden layer (A.5: 0.1).
        clip_norm: Largest norm of each probe's gradient (A.5: 1.0).
        top: Number of heads of top overlap and NDCG (regressors).
        **kwargs: See `TrainedOnRows`.

    """

    experiment = "offset_probes"
    run_settings = (*TrainedOnRows.run_settings, "top")
    structure = (*TrainedOnRows.structure, "num_offsets", "target", "hidden")

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        num_offsets: NonNegativeInt = 10,
        target: Target = "copy_paste",
        hidden: Sequence[PositiveInt] = (8192, 4096, 4096),
        dropout: ShareBelowOne = 0.1,
        clip_norm: PositiveFloat = 1.0,
        top: PositiveInt = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.target, self.num_heads, self.num_offsets = target, num_heads, num_offsets
        self.clip_norm, self.top = clip_norm, top
        kind = ProbeClassifier if target == "copy_paste" else ProbeRegressor
        self.probes = nn.ModuleList(
            [kind(in_features, num_heads, hidden=hidden, dropout=dropout) for _ in range(num_offsets + 1)]
        )
        self.register_buffer("head_means", torch.zeros(num_offsets + 1, num_heads))
        self.register_buffer("static_thresholds", torch.full((num_offsets + 1,), 0.5))
        self.static_thresholds: Tensor
        self.gathered = GatheredRows()

    def setup(self, stage: str) -> None:
        """Check that the data holds the scores of later steps.

        Raises:
            UserError: another data module, or another target.

        """
        super().setup(stage)
        if not isinstance(self._rows(), OffsetRows):
            raise UserError("probes of later steps need datamodules.OffsetRows: set data.class_path to it")

    def _each(self) -> Iterator[Probe]:
        """The probes by k; a ModuleList's items are typed as plain modules."""
        return (cast(Probe, probe) for probe in self.probes)

    def forward(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row offset head"]:
        """Predicted scores of all heads at each k."""
        return torch.stack([probe.predict_scores(hidden) for probe in self._each()], dim=1)

    def loss(self, outputs: Float[Tensor, "row offset head"], scores: Tensor) -> Float[Tensor, "offset"]:
        """Each probe's loss over the rows whose sample has a step k later; 0 where none has."""
        losses = []
        for k, probe in enumerate(self._each()):
            known = has_score(scores[:, k])
            rows = outputs[known, k]
            losses.append(probe.loss(rows, scores[known, k]) if len(rows) else rows.sum().float())
        return torch.stack(losses)

    def _outputs(self, hidden: Tensor) -> Tensor:
        return torch.stack([probe(hidden) for probe in self._each()], dim=1)

    def training_step(self, batch: Rows) -> Tensor:
        """Sum of the losses: as the probes share no weight, each gets its own gradient."""
        loss = self.loss(self._outputs(batch.hidden), batch.scores)
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss.mean(), prog_bar=True)
        return loss.sum()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip each probe's gradient separately."""
        del optimizer
        for probe in self.probes:
            clip_grad_norm_(probe.parameters(), self.clip_norm)

    def validation_step(self, batch: Rows) -> None:
        """Gather the outputs of one batch."""
        with without_autocast():
            outputs = self._outputs(batch.hidden)
        self.gathered.update(outputs.flatten(1), batch.scores.flatten(1), batch.sample)

    test_step = validation_step

    def _drain(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs and scores [row, offset, head], and sample numbers."""
        outputs, scores, sample = self.gathered.drain()
        shape = (len(sample), self.num_offsets + 1, self.num_heads)
        return outputs.view(shape), scores.view(shape), sample

    def on_validation_epoch_end(self) -> None:
        """Losses, and the thresholds that the checkpoint keeps."""
        outputs, scores, _ = self._drain()
        losses = self.loss(outputs.to(self.device), scores.to(self.device))
        self.log("val/loss", losses.mean(), prog_bar=True, sync_dist=True)
        self.log_dict({f"val/loss/k{k:02d}": loss for k, loss in enumerate(losses)}, sync_dist=True)
        for k, probe in enumerate(self._each()):
            if isinstance(probe, ProbeClassifier):
                known = has_score(scores[:, k])
                labels = scores[known, k] > 0
                probe.threshold.fill_(best_threshold(torch.sigmoid(outputs[known, k]), labels))
                self.static_thresholds[k] = best_threshold(self._static(k, labels), labels)

    def _static(self, k: int, scores: Tensor) -> Tensor:
        return self.head_means[k].cpu().expand(scores.shape)

    def on_test_epoch_end(self) -> None:
        """Metrics at each k of its probe, of the static scores, and of the current step's scores repeated."""
        outputs, scores, sample = self._drain()
        self.results = {
            **self.provenance(),
            "target": self.target,
            "samples": len(sample.unique()),
            "resamples": self.resamples,
            "seed": self.bootstrap_seed,
            "offsets": [self._evaluate(k, outputs[:, k], scores, sample) for k in range(self.num_offsets + 1)],
        }
        for record in self.records():
            self.log(f"test/{record['kind']}/{record['metric']}/k{record['k']:02d}", record["value"], sync_dist=True)

    def _evaluate(self, k: int, outputs: Tensor, scores: Tensor, sample: Tensor) -> dict[str, Any]:
        """Metrics of each predictor on the rows that have scores at both steps."""
        known = has_score(scores[:, k]) & has_score(scores[:, 0])
        truth, current, rows = scores[known, k], scores[known, 0], outputs[known]
        predicted = {"probe": torch.sigmoid(rows) if self.target == "copy_paste" else rows}
        predicted["static"] = self._static(k, truth)
        if k:  # at k = 0 the current step's scores are the truth
            predicted["repeat"] = current.nan_to_num()
        found = {kind: self._metrics(k, kind, values, truth, sample[known]) for kind, values in predicted.items()}
        return {"k": k, "rows": int(known.sum()), **found}

    def _metrics(self, k: int, kind: str, predicted: Tensor, truth: Tensor, sample: Tensor) -> dict[str, Any]:
        """Values with their intervals over samples."""
        if self.target == "copy_paste":
            decisions, threshold = RankedDecisions(predicted, truth > 0, sample), self._threshold(k, kind)
            values = decisions.metrics(threshold).as_dict()
            bounds = decisions.intervals(threshold, self.resamples, self.bootstrap_seed)
        else:
            sums = RegressionSums(predicted, truth, sample, self.top)
            values, bounds = sums.metrics(), sums.intervals(self.resamples, self.bootstrap_seed)
        return {name: Estimate(value, *bounds[name]).as_dict() for name, value in values.items()}

    def _threshold(self, k: int, kind: str) -> float:
        if kind == "probe":
            return float(cast(ProbeClassifier, self.probes[k]).threshold)
        return float(self.static_thresholds[k]) if kind == "static" else 0.5

    def records(self) -> list[dict[str, Any]]:
        """One row for each k, predictor (`kind`) and metric."""
        return [
            {"k": offset["k"], "kind": kind, "metric": name, **cell, "rows": offset["rows"]}
            for offset in self.results["offsets"]
            for kind in PREDICTORS
            for name, cell in offset.get(kind, {}).items()
        ]

    def table(self) -> Table:
        """The plotted metrics as numbers."""
        found, metrics = self.results, PLOTTED_METRICS[self.target]
        out = Table(
            title=f"Probes of the heads k steps later ({self.target}): {found['samples']} held-out samples",
            caption="[95 % bootstrap interval over samples]; static: each head's training mean; repeat: the current "
            "step's true scores, taken for those of k steps later",
        )
        for header in ("k", "rows", *(f"{kind} {name}" for name in metrics for kind in PREDICTORS)):
            out.add_column(header, justify="right")
        for offset in found["offsets"]:
            cells = [_cell(offset.get(kind), name) for name in metrics for kind in PREDICTORS]
            out.add_row(str(offset["k"]), f"{offset['rows']:,}", *cells)
        return out

    def plots(self) -> "dict[str, Figure]":
        """Metrics against k."""
        metrics = PLOTTED_METRICS[self.target]
        return {"probes_over_offsets": plot_offsets(self.results["offsets"], PREDICTORS, metrics)}


def has_score(scores: Float[Tensor, "row head"]) -> Bool[Tensor, "row"]:
    """Rows with a score of any head at an offset: their sample has a step that far ahead.

    >>> has_score(torch.tensor([[0.1, torch.nan], [torch.nan, torch.nan]]))
    tensor([ True, False])

    """
    return scores.isfinite().any(dim=1)


def _cell(metrics: dict[str, dict[str, float]] | None, name: str) -> str:
    return Estimate.of(metrics[name]).text(digits=3, interval_digits=2) if metrics else ""
