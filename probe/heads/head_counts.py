"""How many heads are dynamic, or ablated, at a step: the distribution, and its average."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class HeadCounts:
    """Distribution of the number of heads per step.

    Attributes:
        weights: Of each number from 0 on: of the steps that have as many heads, their number or total weight.

    >>> counts = HeadCounts.of_steps([[3, 1, 0, 0], [1, 1]])
    >>> counts.average(), counts.average(count_empty=False)
    (1.0, 1.3333333333333333)
    >>> counts.quantile(torch.tensor([0.0, 0.4, 0.9])).tolist()
    [0, 1, 3]

    """

    weights: tuple[float, ...]

    @classmethod
    def of_steps(cls, prompts: Sequence[Sequence[int]]) -> "HeadCounts":
        """From the numbers at all steps of each prompt; prompts have the same weight, as in other means."""
        numbers = torch.tensor([count for steps in prompts for count in steps])
        weights = torch.tensor([1 / len(steps) for steps in prompts for _ in steps], dtype=torch.float64)
        return cls(tuple(numbers.bincount(weights).tolist()))

    def average(self, count_empty: bool = True) -> float:
        """Mean number of heads per step, over all steps or over those with any head; 0 where there is none."""
        total = sum(self.weights if count_empty else self.weights[1:])
        return sum(number * weight for number, weight in enumerate(self.weights)) / total if total else 0.0

    @property
    def most(self) -> int:
        """The largest number of heads at any step, at least 1."""
        return max([1, *(number for number, weight in enumerate(self.weights) if weight)])

    def quantile(self, uniform: Float[Tensor, "step"]) -> Int[Tensor, "step"]:
        """Numbers of heads of this distribution, by the inverse of its cumulative one, from uniforms in [0, 1)."""
        cumulative = torch.tensor(self.weights, dtype=torch.float64).cumsum(dim=0)
        return torch.searchsorted(cumulative / cumulative[-1], uniform.double(), right=True)
