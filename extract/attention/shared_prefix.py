"""Prompts that several rows of a batch continue: one matrix product serves all branches of a prompt."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Branching:
    """Which prompt each row of a batch continues.

    Attributes:
        slots: Place of each row in a grid of prompts × branches, flat: `prompt * width + branch`.
        width: Number of branches of the prompt that has most.

    """

    slots: Int[Tensor, "batch"]
    width: int

    @classmethod
    def of(cls, prompts: Int[Tensor, "batch"]) -> "Branching":
        """From the number of each row's prompt, ascending, on the host.

        >>> Branching.of(torch.tensor([0, 0, 1]))  # the fourth slot stays empty
        Branching(slots=tensor([0, 1, 2]), width=2)

        """
        counts = torch.bincount(prompts)
        # A row's number among those of its prompt: its own number less the rows of all earlier prompts.
        branch = torch.arange(len(prompts)) - (counts.cumsum(0) - counts)[prompts]
        width = int(counts.max())
        return cls(prompts * width + branch, width)


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Keys and values of prompts, kept once, that the rows of a batch attend to before their own.

    Attributes:
        layers: Keys and values of each layer, [prompt, kvhead, key, size], as its cache holds them.
        branching: Which of the prompts each row continues.

    """

    layers: list[tuple[Tensor, Tensor]]
    branching: Branching


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of one layer: of each row, or of prompts that rows share.

    Rows of products are batch × KV head (`bg`); `share` are the query heads that share a KV head.

    Attributes:
        keys, values: Of every row; with `branching`, of every prompt.
        branching: Which prompt each row reads; None: each row has its own keys.

    >>> keys = torch.tensor([1.0, 2.0, 10.0, 20.0]).view(2, 1, 2, 1)  # of two prompts, two keys each
    >>> shared = KeyValues(keys, keys, Branching.of(torch.tensor([0, 0, 1])))
    >>> shared.query_products(torch.ones(3, 1, 1)).tolist()  # of three rows
    [[[1.0, 2.0]], [[1.0, 2.0]], [[10.0, 20.0]]]

    """

    keys: Float[Tensor, "own kvhead key size"]
    values: Float[Tensor, "own kvhead key vsize"]
    branching: Branching | None = None

    @property
    def length(self) -> int:
        """Number of keys."""
        return self.keys.shape[2]

    def query_products(self, queries: Float[Tensor, "bg share size"]) -> Float[Tensor, "bg share key"]:
        """Dot products of queries with the keys that they see: q · kᵀ."""
        return self._by_row(torch.bmm(self._by_prompt(queries), self.keys.flatten(0, 1).transpose(1, 2)), queries)

    def weighted_values(self, weights: Float[Tensor, "bg share key"]) -> Float[Tensor, "bg share vsize"]:
        """Sums of values, weighted by attention: a · v."""
        return self._by_row(torch.bmm(self._by_prompt(weights), self.values.flatten(0, 1)), weights)

    def _by_prompt(self, rows: Tensor) -> Tensor:
        """Rows gathered by prompt, [prompt × kvhead, branch × share, …], so that one product serves all branches."""
        if self.branching is None:
            return rows
        prompts, groups = self.keys.shape[:2]
        # Prompts with fewer branches leave slots empty: their products are zero, and `_by_row` skips them.
        grid = rows.new_zeros(prompts * self.branching.width, groups, *rows.shape[1:])
        grid[self.branching.slots.to(rows.device, non_blocking=True)] = rows.unflatten(0, (-1, groups))
        # [prompt, branch, kvhead, share, …] → [prompt, kvhead, branch, share, …]: one matrix for each set of keys.
        split: Tensor = grid.unflatten(0, (prompts, -1)).transpose(1, 2)
        return split.reshape(prompts * groups, -1, rows.shape[2])

    def _by_row(self, product: Tensor, rows: Tensor) -> Tensor:
        """A product of what `_by_prompt` gathered, back in the order of the rows."""
        if self.branching is None:
            return product
        prompts, groups = self.keys.shape[:2]
        # [prompt × kvhead, branch × share, …] → [prompt × branch, kvhead, share, …], then only the slots in use.
        split = product.view(prompts, groups, self.branching.width, rows.shape[1], -1)
        spread: Tensor = split.transpose(1, 2).flatten(0, 1)[self.branching.slots.to(rows.device, non_blocking=True)]
        return spread.flatten(0, 1)
