"""The multi-hop probe: the reasoning score of every head (A.5, Table 3)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from probe.losses import masked_mse, step_correlation
from probe.module import Probe
from probe.regression import Regression
from probe.ridge import fit_ridge
from probe.scatter import draw_scatter


class ProbeRegressor(Probe):
    """Mean squared error on Eq. 2, with a linear output.

    The last three keys depart from the paper, whose values are their defaults: they serve the ranking of heads within
    a step, which is what retrieval uses.

    Args:
        in_features, num_heads, hidden, dropout, lr, patience, factor: See `Probe`.
        resamples: Bootstrap resamples of the test samples for 95 % intervals.
        seed: Of the bootstrap.
        top: Heads that count as a step's best (Section 5: 5).
        figure_every: Epochs between TensorBoard's pictures of predicted against true scores; 0 draws none.
        standardize: Scale each hidden dimension by the training rows' mean and deviation.
        residual: What the network's output is added to: nothing, each head's training `mean`, or the `ridge`
            baseline's prediction, so that the network learns what is not linear.
        rank_weight: Add this times (1 - correlation over the heads of a step) to the loss, the squared error then
            being in units of the training scores' variance around the head means.

    """

    target = "reasoning"

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        hidden: Sequence[int] = (8192, 4096, 4096),
        dropout: float = 0.1,
        lr: float = 3e-4,
        patience: int = 3,
        factor: float = 0.1,
        resamples: int = 200,
        seed: int = 0,
        top: int = 5,
        figure_every: int = 10,
        standardize: bool = False,
        residual: Literal["none", "mean", "ridge"] = "none",
        rank_weight: float = 0.0,
    ) -> None:
        super().__init__(in_features, num_heads, hidden, dropout, lr, patience, factor)
        # The CLI links the first two to every model; the others belong to a run, not to the trained probe.
        self.save_hyperparameters(ignore=["llm", "store", "resamples", "seed", "figure_every"])
        self.resamples, self.bootstrap_seed = resamples, seed
        self.top, self.figure_every = top, figure_every
        self.standardize, self.residual, self.rank_weight = standardize, residual, rank_weight
        self.register_buffer("centre", torch.zeros(in_features))
        self.register_buffer("scale", torch.ones(in_features))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("ridge_weight", torch.zeros(num_heads, in_features))
        self.register_buffer("ridge_bias", torch.zeros(num_heads))
        self.centre: Tensor
        self.scale: Tensor
        self.variance: Tensor
        self.ridge_weight: Tensor
        self.ridge_bias: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """Predicted scores of all heads."""
        inputs = (hidden - self.centre) / self.scale if self.standardize else hidden
        output: Tensor = self.mlp(inputs)
        if self.residual == "ridge":
            return output + self.predict_linear(hidden)
        return output + self.head_means if self.residual == "mean" else output

    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Mean squared error over heads that have a score, and the ranking's share if asked for."""
        squared = masked_mse(outputs, scores)
        if not self.rank_weight:
            return squared
        return squared / self.variance + self.rank_weight * (1 - step_correlation(outputs, scores))

    def predict_scores(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Predicted reasoning score of each head."""
        output: Tensor = self(hidden)
        return output

    def predict_linear(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """The ridge baseline's prediction."""
        return hidden @ self.ridge_weight.T + self.ridge_bias

    def on_fit_start(self) -> None:
        """Besides what every probe remembers, the inputs' scale and the linear baseline."""
        super().on_fit_start()
        rows = self._rows()
        mean, deviation, variance = rows.moments()
        self.centre.copy_(mean)
        self.scale.copy_(deviation + 1e-6)
        self.variance.fill_(variance)
        linear = fit_ridge(rows.batches("train"), rows.batches("val"))
        self.ridge_weight.copy_(linear.weight)
        self.ridge_bias.copy_(linear.bias)
        rank_zero_info(f"ridge baseline fitted; strength {linear.alpha} a row had the least validation error")

    def validation_step(self, batch: Any) -> None:
        """Keep the outputs of probe and ridge side by side."""
        outputs = torch.cat([self(batch.hidden), self.predict_linear(batch.hidden)], dim=1)
        self.kept.update(outputs, batch.scores, batch.sample)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Loss and figures."""
        outputs, scores, sample = self.drain()
        outputs = outputs[:, : scores.shape[1]]
        figures = Regression(outputs, scores, sample, self.top).figures()
        self.log("val/loss", self._loss_on_host(outputs, scores), prog_bar=True)
        self.log_dict({f"val/{name}": value for name, value in figures.items()})
        self.log("hp_metric", figures["r2_variance_weighted"])  # for TensorBoard's hyper-parameter view
        last = self.current_epoch + 1 == self.trainer.max_epochs
        if self.figure_every and (last or self.current_epoch % self.figure_every == 0):
            self._draw("val/predicted_against_true", outputs, scores)

    def _loss_on_host(self, outputs: Tensor, scores: Tensor) -> Tensor:
        return self.loss(outputs.to(self.device), scores.to(self.device))

    def _draw(self, name: str, outputs: Tensor, scores: Tensor) -> None:
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_figure"):
            per_layer = self._rows().identity.heads
            writer.add_figure(name, draw_scatter(outputs, scores, per_layer), self.global_step)

    def on_test_epoch_end(self) -> None:
        """Table 3 on the test split, beside the mean score of each head and the linear probe."""
        outputs, scores, sample = self.drain()
        heads = scores.shape[1]
        judged = {
            "probe": outputs[:, :heads],
            "static": self.head_means.cpu().expand(scores.shape),
            "ridge": outputs[:, heads:],
        }
        unscored = int((~scores.isfinite()).all(dim=1).sum())
        self.results: dict[str, Any] = {
            "rows": len(scores),
            "samples": len(sample.unique()),
            "unscored_rows": unscored,
            "top": self.top,
        }
        for name, predicted in judged.items():
            regression = Regression(predicted, scores, sample, self.top)
            figures = regression.figures()
            intervals = regression.intervals(self.resamples, self.bootstrap_seed)
            self.results[name] = {**figures, "intervals": intervals}
            prefix = "test" if name == "probe" else f"test/{name}"
            self.log_dict({f"{prefix}/{key}": value for key, value in figures.items()})
        self._draw("test/predicted_against_true", judged["probe"], scores)
