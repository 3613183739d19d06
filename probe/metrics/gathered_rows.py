"""A torchmetrics Metric that gathers rows, for metrics that need all of them together."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class GatheredRows(Metric):
    """Outputs, true scores and sample numbers of every row, concatenated over batches and processes.

    Args:
        *further: Names of further columns to gather.
        **kwargs: See `torchmetrics.Metric`.

    >>> rows = GatheredRows()
    >>> rows.update(torch.tensor([[0.7], [0.1]]), torch.tensor([[1.0], [0.0]]), torch.tensor([4, 2]))
    >>> rows.compute()
    (tensor([[0.1000], [0.7000]]), tensor([[0.], [1.]]), tensor([2, 4]))

    """

    full_state_update = False
    outputs: list[Tensor]
    scores: list[Tensor]
    sample: list[Tensor]

    def __init__(self, *further: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = ("outputs", "scores", "sample", *further)
        for name in self.columns:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        outputs: Float[Tensor, "row output"],
        scores: Float[Tensor, "row head"],
        sample: Int[Tensor, "row"],
        **further: Tensor,
    ) -> None:
        """Add a batch."""
        columns = {"outputs": outputs.detach().float(), "scores": scores, "sample": sample, **further}
        for name in self.columns:
            getattr(self, name).append(columns[name])

    def compute(self) -> tuple[Tensor, ...]:
        """Outputs, scores, sample numbers and further columns, in sample order whatever the number of processes."""
        columns = [dim_zero_cat(getattr(self, name)) for name in self.columns]
        order = torch.argsort(columns[2], stable=True)
        return tuple(column[order] for column in columns)

    def drain(self) -> tuple[Tensor, ...]:
        """All rows as `compute` returns them, on the CPU, and reset."""
        columns = tuple(column.cpu() for column in self.compute())
        self.reset()
        return columns
