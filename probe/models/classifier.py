"""The NIAH probe: which heads score at the current step, as a multi-label classifier (A.5, Table 2)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import SumMetric

from datamodules import Rows
from extract.utils import NonNegativeFloat, PositiveInt, ShareBelowOne, without_autocast
from probe.metrics import (
    EXACT_PAIRS,
    BinnedDecisions,
    Evaluated,
    PrecisionRecallCurve,
    RankedDecisions,
    constant_curve,
    differences,
)
from probe.models.base import Probe
from probe.models.losses import Reduction, asymmetric_loss


class ProbeClassifier(Probe):
    """Multi-label classifier of the copy-paste score (Eq. 1), trained with the asymmetric loss.

    A head is predicted to score from the threshold of highest micro F1 on the validation split on.

    Args:
        in_features: Hidden size of the LLM, linked from the store.
        num_heads: Heads of the LLM, linked from the store.
        gamma_neg: Focusing exponent of negatives in the asymmetric loss (its authors' default).
        gamma_pos: Focusing exponent of positives (likewise).
        clip: Probability margin of negatives (likewise).
        reduction: Of the loss over the rows of a batch: `mean`, or `sum` as its authors have it.
        **kwargs: See `Probe`.

    """

    target = "copy_paste"
    experiment = "classifier"

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        gamma_neg: NonNegativeFloat = 4.0,
        gamma_pos: NonNegativeFloat = 1.0,
        clip: ShareBelowOne = 0.05,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_heads, **kwargs)
        self.loss_settings: dict[str, Any] = {
            **{"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip},
            "reduction": reduction,
        }
        self.register_buffer("threshold", torch.tensor(0.5))
        self.threshold: Tensor
        self.register_buffer("static_threshold", torch.tensor(0.5))
        self.static_threshold: Tensor
        self._static_chosen = False
        self.binned, self.binned_loss, self._binned = BinnedDecisions(num_heads), SumMetric(), False

    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Asymmetric loss."""
        return asymmetric_loss(outputs, scores, **self.loss_settings)

    def predict_scores(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Predicted probability of each head to score."""
        return torch.sigmoid(self(hidden))

    def predict_heads(self, hidden: Float[Tensor, "row hidden"]) -> Bool[Tensor, "row head"]:
        """Whether each head is predicted to score: its probability reaches the validation threshold."""
        return self.predict_scores(hidden) >= self.threshold

    def on_fit_start(self) -> None:
        """As for every probe; the threshold of static means is chosen at the first validation."""
        super().on_fit_start()
        self._static_chosen = False

    def on_validation_epoch_start(self) -> None:
        """Choose exact or binned metrics by the size of the validation split."""
        super().on_validation_epoch_start()
        pairs = len(self._rows().batches("val").rows) * len(self.head_means)
        self._binned = pairs > EXACT_PAIRS

    def validation_step(self, batch: Rows) -> None:
        """Gather the outputs of one batch, or count them by bin."""
        if not self._binned:
            super().validation_step(batch)
            return
        with without_autocast():
            outputs = self.evaluated_outputs(batch.hidden)
        self.binned.update(torch.sigmoid(outputs.float()), batch.scores > 0)
        if len(outputs):  # a process may have no batch
            loss = self.loss(outputs, batch.scores)
            self.binned_loss.update(loss * len(outputs) if self.loss_settings["reduction"] == "mean" else loss)

    def on_validation_epoch_end(self) -> None:
        """Loss, micro metrics, and the threshold that the checkpoint keeps."""
        if self._binned:
            self._end_binned()
            return
        outputs, scores, sample = self.gathered.drain()
        probabilities, labels = torch.sigmoid(outputs), scores > 0
        self._log_validation(
            RankedDecisions(probabilities, labels, sample), self.loss(outputs, scores), labels.sum(dim=0), len(labels)
        )
        self._log_curve("val/precision_recall", probabilities, labels)

    def _end_binned(self) -> None:
        total, (*_, positives, rows) = self.binned_loss.compute(), self.binned.compute()
        loss = total / rows.item() if self.loss_settings["reduction"] == "mean" else total
        self._log_validation(self.binned.curve(), loss, positives, int(rows))
        self.binned.reset()
        self.binned_loss.reset()

    def _log_validation(
        self, decisions: RankedDecisions | PrecisionRecallCurve, loss: Tensor, positives: Tensor, rows: int
    ) -> None:
        """Choose the thresholds, and log.

        Args:
            decisions: Of the probe.
            loss: Over the split.
            positives: Rows in which each head scores.
            rows: Rows of the split.

        """
        self.threshold.fill_(decisions.best_threshold())
        if not self._static_chosen:
            static = constant_curve(self.head_means, positives, rows)
            self.static_threshold.fill_(static.best_threshold())
            self._static_chosen = not self.trainer.sanity_checking  # which has some of the rows alone
        metrics = decisions.metrics(float(self.threshold))
        self.log("val/loss", loss, prog_bar=True, sync_dist=True)
        self.log_dict({f"val/{name}": value for name, value in metrics.as_dict().items()}, sync_dist=True)
        self.log("val/threshold", self.threshold, sync_dist=True)
        self.log("hp_metric", metrics.f1, sync_dist=True)  # TensorBoard compares the hyper-parameters of runs by it

    def _log_curve(self, name: str, probabilities: Tensor, labels: Tensor) -> None:
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_pr_curve"):
            writer.add_pr_curve(name, labels, probabilities, self.global_step)

    def on_test_epoch_end(self) -> None:
        """Table 2 on the test split: probe and baselines, with intervals over samples and paired differences."""
        outputs, scores, sample, step, known = self.tested.drain()
        probabilities, labels = torch.sigmoid(outputs), scores > 0
        self.results = {**self.provenance(), "rows": len(labels), "samples": len(sample.unique())}
        predicted = [("probe", probabilities), *self.baseline_scores(scores, step, known)]
        evaluated = {kind: self._evaluate(kind, RankedDecisions(values, labels, sample)) for kind, values in predicted}
        self.results["differences"] = differences(evaluated)
        self._log_curve("test/precision_recall", probabilities, labels)

    def _threshold_of(self, kind: str) -> float:
        own = {"probe": self.threshold, "static": self.static_threshold}
        return float(own[kind]) if kind in own else self.baselines[0].thresholds[kind]

    def _evaluate(self, name: str, decisions: RankedDecisions) -> Evaluated:
        threshold = self._threshold_of(name)
        evaluated = decisions.evaluated(threshold, self.resamples, self.bootstrap_seed)
        self.results[name] = {**evaluated.metrics, "threshold": threshold, "intervals": evaluated.intervals}
        prefix = "test" if name == "probe" else f"test/{name}"
        self.log_dict({f"{prefix}/{key}": value for key, value in evaluated.metrics.items()}, sync_dist=True)
        self.log(f"{prefix}/threshold", threshold, sync_dist=True)
        return evaluated
