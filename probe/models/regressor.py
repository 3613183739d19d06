"""The multi-hop probe: the reasoning score of every head (A.5, Table 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from extract.errors import UserError
from probe.metrics import Regression
from probe.models.base import Probe
from probe.models.losses import masked_mse
from probe.models.plots import plot_scatter
from probe.models.ridge import fit_ridge


class ProbeRegressor(Probe):
    """Mean squared error on Eq. 2, with a linear output.

    Args:
        in_features, num_heads, hidden, dropout, lr, patience, factor: See `Probe`.
        resamples: Bootstrap resamples of the test samples for 95 % intervals.
        seed: Of the bootstrap.
        top: Heads that count as a step's best (Section 5: 5).
        figure_every: Epochs between TensorBoard's pictures of predicted against true scores; 0 draws none.
        blend: Share of the ridge baseline in what is predicted. The paper's regressor has none; a network and a linear
            map that were fitted apart err apart, so that their mean errs less, in value and in ranking.

    """

    target = "reasoning"

    experiment = "regressor"

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
        blend: float = 0.0,
    ) -> None:
        super().__init__(in_features, num_heads, hidden, dropout, lr, patience, factor)
        # The CLI links the first two to every model; the others belong to a run, not to the trained probe.
        self.save_hyperparameters(ignore=["llm", "store", "resamples", "seed", "figure_every"])
        self.resamples, self.bootstrap_seed = resamples, seed
        self.top, self.figure_every = top, figure_every
        self.blend = blend
        self.register_buffer("ridge_weight", torch.zeros(num_heads, in_features))
        self.register_buffer("ridge_bias", torch.zeros(num_heads))
        self.ridge_weight: Tensor
        self.ridge_bias: Tensor

    def setup(self, stage: str) -> None:
        """Check the data, and the share."""
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

    def on_fit_start(self) -> None:
        """Besides what every probe remembers, the linear baseline."""
        super().on_fit_start()
        rows = self._rows()
        linear = fit_ridge(rows.batches("train"), rows.batches("val"))
        self.ridge_weight.copy_(linear.weight)
        self.ridge_bias.copy_(linear.bias)
        rank_zero_info(f"ridge baseline fitted; strength {linear.alpha} a row had the least validation error")

    def validation_step(self, batch: Any) -> None:
        """Keep the predictions of probe and ridge side by side."""
        outputs = torch.cat([self.predict_scores(batch.hidden), self.predict_linear(batch.hidden)], dim=1)
        self.kept.update(outputs, batch.scores, batch.sample)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Loss and figures."""
        outputs, scores, sample = self.drain()
        outputs = outputs[:, : scores.shape[1]]
        figures = Regression(outputs, scores, sample, self.top).figures()
        self.log("val/loss", self._loss_on_host(outputs, scores), prog_bar=True, sync_dist=True)
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=True)
        # what TensorBoard's hyper-parameter view compares runs by
        self.log("hp_metric", figures["r2_variance_weighted"], sync_dist=True)
        last = self.current_epoch + 1 == self.trainer.max_epochs
        if self.figure_every and (last or self.current_epoch % self.figure_every == 0):
            self._draw("val/predicted_against_true", outputs, scores)

    def _loss_on_host(self, outputs: Tensor, scores: Tensor) -> Tensor:
        return self.loss(outputs.to(self.device), scores.to(self.device))

    def _draw(self, name: str, outputs: Tensor, scores: Tensor) -> None:
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_figure"):
            per_layer = self._rows().identity.heads
            writer.add_figure(name, plot_scatter(outputs, scores, per_layer), self.global_step)

    def on_test_epoch_end(self) -> None:
        """Table 3 on the test split, beside the mean score of each head and the linear probe."""
        outputs, scores, sample = self.drain()
        heads = scores.shape[1]
        evaluated = {
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
        for name, predicted in evaluated.items():
            regression = Regression(predicted, scores, sample, self.top)
            figures = regression.figures()
            intervals = regression.intervals(self.resamples, self.bootstrap_seed)
            self.results[name] = {**figures, "intervals": intervals}
            prefix = "test" if name == "probe" else f"test/{name}"
            self.log_dict({f"{prefix}/{key}": value for key, value in figures.items()}, sync_dist=True)
        self._draw("test/predicted_against_true", evaluated["probe"], scores)
