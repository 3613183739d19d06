"""Step tables: the mean score of each head at each step number, which predicts from the step number alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class StepTable:
    """Mean training score of each head at each step number.

    A mean counts the head's mean over all steps as one more observation: (Σ + m) / (n + 1) for n scores of sum Σ. A
    step number that few training samples reach is thus near m, and one that none reaches has m itself.

    Attributes:
        means: By step number, from 0.
        overall: m, for step numbers beyond the last.

    >>> sums = StepSums()
    >>> sums.update(torch.tensor([[1.0], [1.0], [0.0], [0.0]]), step=torch.tensor([0, 0, 0, 1]))
    >>> table = sums.table()
    >>> table.overall, table.predict(torch.tensor([0, 1, 7])).T
    (tensor([0.5000]), tensor([[0.6250, 0.2500, 0.5000]]))

    """

    means: Float[Tensor, "step *head"]
    overall: Float[Tensor, "*head"]

    def predict(self, step: Int[Tensor, "row"]) -> Float[Tensor, "row *head"]:
        """The scores of rows by their step numbers."""
        padded = torch.cat([self.means, self.overall[None]])
        return padded[step.clamp(max=len(self.means))]


class StepSums:
    """Sums and numbers of the scores of each head at each step number, over any number of batches.

    >>> sums = StepSums()
    >>> sums.update(torch.tensor([[0.4, torch.nan]]), step=torch.tensor([1]))
    >>> sums.total[:2], sums.count[:2]
    (tensor([[0.0000, 0.0000], [0.4000, 0.0000]], dtype=torch.float64),
     tensor([[0., 0.], [1., 0.]], dtype=torch.float64))

    """

    def __init__(self) -> None:
        self.total, self.count = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)

    def update(self, scores: Float[Tensor, "row *head"], step: Int[Tensor, "row"]) -> None:
        """Add rows; a missing score (NaN) is left out."""
        if not len(scores):
            return
        self._grow(int(step.max()) + 1, scores)
        self.total.index_add_(0, step, scores.double().nan_to_num())
        self.count.index_add_(0, step, scores.isfinite().double())

    def _grow(self, steps: int, like: Tensor) -> None:
        if steps > len(self.total):
            more = like.new_zeros(steps - len(self.total), *like.shape[1:], dtype=torch.float64)
            self.total, self.count = (
                torch.cat([sums.reshape(-1, *like.shape[1:]).to(like.device), more])
                for sums in (self.total, self.count)
            )

    def table(self) -> StepTable:
        """The means in float32; 0 for a head without any score."""
        overall = self.total.sum(0) / self.count.sum(0).clamp(min=1)
        return StepTable(((self.total + overall) / (self.count + 1)).float(), overall.float())
