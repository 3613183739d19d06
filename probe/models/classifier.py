"""The NIAH probe: which heads score on the current step, as a multi-label classifier (A.5, Table 2)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.metrics import Ranked, best_threshold
from probe.models.base import Probe
from probe.models.losses import asymmetric_loss


class ProbeClassifier(Probe):
    """Asymmetric loss on Eq. 1; decisions at the threshold of highest F1 on the validation split.

    Args:
        in_features, num_heads, hidden, dropout, lr, patience, factor: See `Probe`.
        gamma_neg, gamma_pos, clip: Of the asymmetric loss (its authors' defaults).
        resamples: Bootstrap resamples of the test samples for 95 % intervals.
        seed: Of the bootstrap.

    """

    target = "copy_paste"

    experiment = "classifier"

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        hidden: Sequence[int] = (8192, 4096, 4096),
        dropout: float = 0.1,
        lr: float = 3e-4,
        patience: int = 3,
        factor: float = 0.1,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        resamples: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(in_features, num_heads, hidden, dropout, lr, patience, factor)
        # The CLI links the first two to every model; the last two belong to a test run, not to the trained probe.
        self.save_hyperparameters(ignore=["llm", "store", "resamples", "seed"])
        self.gammas = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
        self.resamples, self.bootstrap_seed = resamples, seed
        self.register_buffer("threshold", torch.tensor(0.5))
        self.threshold: Tensor
        self.register_buffer("static_threshold", torch.tensor(0.5))
        self.static_threshold: Tensor

    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Asymmetric loss."""
        return asymmetric_loss(outputs, scores, **self.gammas)

    def predict_scores(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Probability of each head to score."""
        return torch.sigmoid(self(hidden))

    def predict_heads(self, hidden: Float[Tensor, "row hidden"]) -> Tensor:
        """Whether each head is predicted to score: its probability reaches the validation threshold."""
        return self.predict_scores(hidden) >= self.threshold

    def on_validation_epoch_end(self) -> None:
        """Loss, micro figures, and the threshold the checkpoint will carry."""
        outputs, scores, sample = self.drain()
        probabilities, labels = torch.sigmoid(outputs), scores > 0
        self.threshold.fill_(best_threshold(probabilities, labels))
        self.static_threshold.fill_(best_threshold(self._static(labels), labels))
        figures = Ranked(probabilities, labels, sample).figures(float(self.threshold))
        self.log("val/loss", self.loss(outputs, scores), prog_bar=True, sync_dist=True)
        self.log_dict({f"val/{name}": value for name, value in figures.as_dict().items()}, sync_dist=True)
        self.log("val/threshold", self.threshold, sync_dist=True)
        self.log("hp_metric", figures.f1, sync_dist=True)  # what TensorBoard's hyper-parameter view compares runs by
        self._draw_curve("val/precision_recall", probabilities, labels)

    def _static(self, labels: Tensor) -> Tensor:
        """The baseline's scores: each head's training frequency, whatever the hidden state."""
        return self.head_means.cpu().expand(labels.shape)

    def _draw_curve(self, name: str, probabilities: Tensor, labels: Tensor) -> None:
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_pr_curve"):
            writer.add_pr_curve(name, labels, probabilities, self.global_step)

    def on_test_epoch_end(self) -> None:
        """Table 2 on the test split, probe and static baseline, with intervals over samples."""
        outputs, scores, sample = self.drain()
        probabilities, labels = torch.sigmoid(outputs), scores > 0
        self.results: dict[str, Any] = {"rows": len(labels), "samples": len(sample.unique())}
        evaluated = {
            "probe": (probabilities, float(self.threshold)),
            "static": (self._static(labels), float(self.static_threshold)),
        }
        for name, (predicted, threshold) in evaluated.items():
            ranked = Ranked(predicted, labels, sample)
            figures = ranked.figures(threshold).as_dict()
            intervals = ranked.intervals(threshold, self.resamples, self.bootstrap_seed)
            self.results[name] = {**figures, "threshold": threshold, "intervals": intervals}
            prefix = "test" if name == "probe" else "test/static"
            self.log_dict({f"{prefix}/{key}": value for key, value in figures.items()}, sync_dist=True)
            self.log(f"{prefix}/threshold", threshold, sync_dist=True)
        self._draw_curve("test/precision_recall", probabilities, labels)
