"""A torchmetrics Metric that keeps rows, for figures that need all of them at once."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class KeptRows(Metric):
    """Outputs, scores and sample numbers of every row, joined over batches and processes in sample order."""

    full_state_update = False
    outputs: list[Tensor]
    scores: list[Tensor]
    sample: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("outputs", "scores", "sample"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, outputs: Float[Tensor, "row output"], scores: Float[Tensor, "row head"], sample: Int[Tensor, "row"]
    ) -> None:
        """Keep a batch."""
        self.outputs.append(outputs.detach().float())
        self.scores.append(scores)
        self.sample.append(sample)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows so far: outputs, scores, sample numbers. The order of processes leaves no trace."""
        outputs, scores, sample = (dim_zero_cat(x) for x in (self.outputs, self.scores, self.sample))
        order = torch.argsort(sample, stable=True)
        return outputs[order], scores[order], sample[order]
