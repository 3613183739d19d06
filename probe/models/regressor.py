"""The multi-hop probe: the reasoning score of every head, as a regression (A.5, Table 3)."""

from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from extract.errors import UserError
from extract.heads import HeadGrid
from extract.scores import Target
from extract.utils import NonNegativeInt, PositiveInt, ShareBelowOne
from probe.metrics import Evaluated, RegressionSums, differences
from probe.models.base import Probe
from probe.models.losses import masked_mse
from probe.models.plots import plot_scatter
from probe.models.ridge import fit_ridge


class ProbeRegressor(Probe):
    """Regression of the reasoning score (Eq. 2) with a linear output, trained with the mean squared error.

    Args:
        in_features: Hidden size of the LLM, linked from the store.
        num_heads: Heads of the LLM, linked from the store.
        top: Number of heads of top overlap and NDCG (Section 5: 5).
        figure_every: Epochs between TensorBoard figures of predicted against true scores; 0 for none.
        blend: Share of the ridge baseline in the prediction. The paper's regressor has none; the errors of network and
            linear map are only partly correlated, so that their mean has a smaller error and ranks better.
        **kwargs: See `Probe`.

    """

    target: Target = "reasoning"
    experiment = "regressor"
    run_settings = (*Probe.run_settings, "figure_every")

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        top: PositiveInt = 5,
        figure_every: NonNegativeInt = 10,
        blend: ShareBelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_heads, **kwargs)
        self.top, self.figure_every, self.blend = top, figure_every, blend
        self.register_buffer("ridge_weight", torch.zeros(num_heads, in_features))
        self.register_buffer("ridge_bias", torch.zeros(num_heads))
        self.ridge_weight: Tensor
        self.ridge_bias: Tensor

    def setup(self, stage: str) -> None:
        """Check the data, and `blend`.

        Raises:
            UserError: `blend` is no share below 1, or what `TrainedOnRows` refuses.

        """
        super().setup(stage)
        if not 0 <= self.blend < 1:
            raise UserError(f"model.blend: a share of at least 0 and below 1, not {self.blend}")

    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Mean squared error over heads that have a score."""
        return masked_mse(outputs, scores)

    def predict_scores(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Predicted reasoning score of each head."""
        output: Tensor = self(hidden)
        return torch.lerp(output, self.predict_linear(hidden), self.blend) if self.blend else output

    def predict_linear(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """The ridge baseline's prediction."""
        return hidden @ self.ridge_weight.T + self.ridge_bias

    def evaluated_outputs(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row output"]:
        """The predictions of probe and ridge side by side."""
        return torch.cat([self.predict_scores(hidden), self.predict_linear(hidden)], dim=1)

    def on_fit_start(self) -> None:
        """Record the training data, and fit the ridge baseline."""
        super().on_fit_start()
        rows = self._rows()
        ridge = fit_ridge(rows.batches("train"), rows.batches("val"))
        self.ridge_weight.copy_(ridge.weight)
        self.ridge_bias.copy_(ridge.bias)
        rank_zero_info(f"ridge baseline fitted; strength {ridge.alpha} a row has the least validation error")

    def on_validation_epoch_end(self) -> None:
        """Loss and metrics."""
        outputs, scores, sample = self.gathered.drain()
        outputs = outputs[:, : scores.shape[1]]
        metrics = RegressionSums(outputs, scores, sample, self.top).metrics()
        loss = self.loss(outputs.to(self.device), scores.to(self.device))
        self.log("val/loss", loss, prog_bar=True, sync_dist=True)
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True)
        # TensorBoard compares the hyper-parameters of runs by it
        self.log("hp_metric", metrics["r2_variance_weighted"], sync_dist=True)
        last = self.current_epoch + 1 == self.trainer.max_epochs
        if self.figure_every and (last or self.current_epoch % self.figure_every == 0):
            self._log_scatter("val/predicted_against_true", outputs, scores)

    def _log_scatter(self, name: str, outputs: Tensor, scores: Tensor) -> None:
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_figure"):
            llm = self._rows().identity
            figure = plot_scatter(outputs, scores, HeadGrid(llm.layers, llm.heads))
            writer.add_figure(name, figure, self.global_step)

    def on_test_epoch_end(self) -> None:
        """Table 3 on the test split: probe and baselines, with intervals over samples and paired differences."""
        outputs, scores, sample, step, known = self.tested.drain()
        own, ridge = outputs.split(scores.shape[1], dim=1)
        predicted = [("probe", own), *self.baseline_scores(scores, step, known), ("ridge", ridge)]
        self.results = {
            **self.provenance(),
            "rows": len(scores),
            "samples": len(sample.unique()),
            "unscored_rows": int((~scores.isfinite()).all(dim=1).sum()),
            "top": self.top,
        }
        sums = ((name, RegressionSums(values, scores, sample, self.top)) for name, values in predicted)
        evaluated = {name: self._evaluate(name, one) for name, one in sums}
        self.results["differences"] = differences(evaluated)
        self._log_scatter("test/predicted_against_true", own, scores)

    def _evaluate(self, name: str, sums: RegressionSums) -> Evaluated:
        evaluated = sums.evaluated(self.resamples, self.bootstrap_seed)
        self.results[name] = {**evaluated.metrics, "intervals": evaluated.intervals}
        prefix = "test" if name == "probe" else f"test/{name}"
        self.log_dict({f"{prefix}/{key}": value for key, value in evaluated.metrics.items()}, sync_dist=True)
        return evaluated


class ContributionRegressor(ProbeRegressor):
    """Regression of the logit contribution of the evidence through each head; otherwise as `ProbeRegressor`.

    Contributions are in logits and not bounded.
    """

    target = "contribution"
