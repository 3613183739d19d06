"""The multi-hop probe: the reasoning score of every head (A.5, Table 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.losses import masked_mse
from probe.module import Probe


def regression_figures(predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"]) -> dict[str, float]:
    """MSE, MAE and R² in two readings, over the pairs that have a score.

    `r2_variance_weighted` weighs each head's R² by its variance; `r2_flattened` takes all pairs as one variable, so
    that differences between heads count as variance to explain. A uniform mean over heads is not given: heads that
    never move make it explode.
    """
    known = scores.isfinite()
    truth = torch.where(known, scores, 0.0).double()
    error = torch.where(known, predicted - truth, 0.0).double()
    count = known.sum()
    head_mean = truth.sum(0) / known.sum(0).clamp(min=1)
    within = torch.where(known, truth - head_mean, 0.0).square().sum()
    around = torch.where(known, truth - truth.sum() / count, 0.0).square().sum()
    squared = error.square().sum()
    return {
        "mse": float(squared / count),
        "mae": float(error.abs().sum() / count),
        "r2_variance_weighted": float(1 - squared / within),
        "r2_flattened": float(1 - squared / around),
    }


class ProbeRegressor(Probe):
    """Mean squared error on Eq. 2, with a linear output.

    Args:
        in_features, num_heads, hidden, dropout, lr, patience, factor: See `Probe`.

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
    ) -> None:
        super().__init__(in_features, num_heads, hidden, dropout, lr, patience, factor)
        self.save_hyperparameters(ignore=["llm", "store"])  # the CLI links them to every model

    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Mean squared error over heads that have a score."""
        return masked_mse(outputs, scores)

    def predict_scores(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Predicted reasoning score of each head."""
        output: Tensor = self(hidden)
        return output

    def on_validation_epoch_end(self) -> None:
        """Loss and figures."""
        outputs, scores, _ = self.drain()
        figures = regression_figures(outputs, scores)
        self.log("val/loss", self.loss(outputs, scores), prog_bar=True)
        self.log_dict({f"val/{name}": value for name, value in figures.items()})
        self.log("hp_metric", figures["r2_variance_weighted"])  # for TensorBoard's hyper-parameter view

    def on_test_epoch_end(self) -> None:
        """Table 3 on the test split, beside the mean score of each head."""
        outputs, scores, sample = self.drain()
        self.results: dict[str, Any] = {"rows": len(scores), "samples": len(sample.unique())}
        for name, predicted in (("probe", outputs), ("static", self.head_means.cpu().expand(scores.shape))):
            figures = regression_figures(predicted, scores)
            self.results[name] = figures
            prefix = "test" if name == "probe" else "test/static"
            self.log_dict({f"{prefix}/{key}": value for key, value in figures.items()})
