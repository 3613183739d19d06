"""Keys that several rows of a batch share: one matrix product for all branches of a prompt."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Branching:
    """Which prompt each row of a batch goes on.

    Attributes:
        places: For each row, prompt × `width` + its number among the rows of that prompt.
        width: Most rows of one prompt.

    """

    places: Int[Tensor, "batch"]
    width: int

    @classmethod
    def of(cls, prompts: Int[Tensor, "batch"]) -> "Branching":
        """From the prompt of each row, ascending."""
        counts = torch.bincount(prompts)
        number = torch.arange(len(prompts), device=prompts.device) - (counts.cumsum(0) - counts)[prompts]
        width = int(counts.max())
        return cls(prompts * width + number, width)


@dataclass(frozen=True)
class Keys:
    """Keys and values of one layer, for rows that have one each, or for rows that branch from prompts.

    Attributes:
        keys, values: Of every row, or of every prompt.
        branching: Of the rows, if they branch.

    """

    keys: Float[Tensor, "own kvhead key size"]
    values: Float[Tensor, "own kvhead key vsize"]
    branching: Branching | None = None

    @property
    def length(self) -> int:
        """Number of keys."""
        return self.keys.shape[2]

    def logits_of(self, rows: Float[Tensor, "bg share size"]) -> Float[Tensor, "bg share key"]:
        """Products of queries with their keys."""
        return self._spread(torch.bmm(self._gather(rows), self.keys.flatten(0, 1).transpose(1, 2)), rows)

    def values_of(self, weights: Float[Tensor, "bg share key"]) -> Float[Tensor, "bg share vsize"]:
        """Sums of their values, weighted."""
        return self._spread(torch.bmm(self._gather(weights), self.values.flatten(0, 1)), weights)

    def _gather(self, rows: Tensor) -> Tensor:
        """Rows of a prompt as one matrix: [prompt × kvhead, branch × share, …]; absent branches are zero."""
        if self.branching is None:
            return rows
        prompts, groups = self.keys.shape[:2]
        full = rows.new_zeros(prompts * self.branching.width, groups, *rows.shape[1:])
        full[self.branching.places.to(rows.device)] = rows.unflatten(0, (-1, groups))
        split: Tensor = full.unflatten(0, (prompts, -1)).transpose(1, 2)
        return split.reshape(prompts * groups, -1, rows.shape[2])

    def _spread(self, result: Tensor, rows: Tensor) -> Tensor:
        """The inverse of `_gather`, for its product."""
        if self.branching is None:
            return result
        prompts, groups = self.keys.shape[:2]
        split = result.view(prompts, groups, self.branching.width, rows.shape[1], -1)
        spread: Tensor = split.transpose(1, 2).flatten(0, 1)[self.branching.places.to(rows.device)]
        return spread.flatten(0, 1)
