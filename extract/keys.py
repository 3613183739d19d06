"""Keys that several rows of a batch share: one matrix product for all branches of a prompt."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Keys:
    """Keys and values of one layer; a row of them serves one row of queries, or several neighbouring ones.

    Attributes:
        keys, values: Rows are prompts × KV heads, or batch rows × KV heads where nothing is shared.
        groups: KV heads.

    """

    keys: Float[Tensor, "pg key size"]
    values: Float[Tensor, "pg key vsize"]
    groups: int

    @property
    def length(self) -> int:
        """Number of keys."""
        return self.keys.shape[1]

    def logits_of(self, rows: Float[Tensor, "bg share size"]) -> Float[Tensor, "bg share key"]:
        """Products of queries with their keys."""
        return self._spread(torch.bmm(self._gather(rows), self.keys.transpose(1, 2)), rows)

    def values_of(self, weights: Float[Tensor, "bg share key"]) -> Float[Tensor, "bg share vsize"]:
        """Sums of their values, weighted."""
        return self._spread(torch.bmm(self._gather(weights), self.values), weights)

    def _gather(self, rows: Tensor) -> Tensor:
        """Rows that share a row of keys as one matrix: [prompt × group, branch × share, …]."""
        prompts, branches = len(self.keys) // self.groups, len(rows) // len(self.keys)
        split = rows.view(prompts, branches, self.groups, *rows.shape[1:])
        return split.transpose(1, 2).reshape(len(self.keys), -1, rows.shape[2])

    def _spread(self, result: Tensor, rows: Tensor) -> Tensor:
        """The inverse of `_gather`, for its product."""
        prompts, branches = len(self.keys) // self.groups, len(rows) // len(self.keys)
        split = result.view(prompts, self.groups, branches, rows.shape[1], -1)
        return split.transpose(1, 2).reshape(len(rows), rows.shape[1], -1)
