"""A torchmetrics Metric that gathers rows, for metrics that need all of them together."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class GatheredRows(Metric):
    """Outputs, true scores and sample numbers of every row, concatenated over batches and processes.

    >>> rows = GatheredRows()
    >>> rows.update(torch.tensor([[0.7], [0.1]]), torch.tensor([[1.0], [0.0]]), torch.tensor([4, 2]))
    >>> rows.compute()
    (tensor([[0.1000], [0.7000]]), tensor([[0.], [1.]]), tensor([2, 4]))

    """

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
        """Add a batch."""
        self.outputs.append(outputs.detach().float())
        self.scores.append(scores)
        self.sample.append(sample)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, scores and sample numbers of all rows, in sample order, whatever the number of processes."""
        outputs, scores, sample = (dim_zero_cat(x) for x in (self.outputs, self.scores, self.sample))
        order = torch.argsort(sample, stable=True)
        return outputs[order], scores[order], sample[order]

    def drain(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows as `compute` returns them, on the CPU, and reset."""
        outputs, scores, sample = (x.cpu() for x in self.compute())
        self.reset()
        return outputs, scores, sample
