"""Conditions of claim 2: which heads to ablate at a step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.errors import UserError
from extract.heads import top_k_mask
from probe.heads import Ranking, read_ranking


@dataclass(frozen=True)
class TrainingHeads:
    """What conditions are prepared with, from a store's training samples alone.

    Attributes:
        ranking: Static ranking of all heads.
        average: n, the average number of dynamic heads per step, rounded.

    """

    ranking: Ranking
    average: int


class Condition(ABC):
    """A rule that chooses the heads to ablate."""

    name: str
    """Name in tables and plots, complete once the condition is prepared."""

    def prepare(self, training: TrainingHeads) -> None:
        """Fix what does not change during the run. Bad settings raise a UserError here."""
        del training

    @abstractmethod
    def ablated(self, dynamic: Bool[Tensor, "row head"], order: Float[Tensor, "row head"]) -> Bool[Tensor, "row head"]:
        """The heads to ablate at a step, given its dynamic heads and what orders them (higher first)."""

    def describe(self) -> dict[str, Any]:
        """Settings that determine the choice, for results.json."""
        return {"name": self.name}


class NoAblation(Condition):
    """No ablation: plain greedy generation."""

    name = "none"

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """No head."""
        del order
        return torch.zeros_like(dynamic)


class AblateDynamic(Condition):
    """Ablate the dynamic heads of the step.

    Args:
        top: At most this many of them, by score, then by attention on the needle; null: all.

    """

    def __init__(self, top: int | None = None) -> None:
        self.top = top
        self.name = "dynamic" if top is None else f"dynamic top {top}"

    def prepare(self, training: TrainingHeads) -> None:
        """Check the number."""
        del training
        if self.top is not None and self.top < 0:
            raise UserError(f"model.conditions: AblateDynamic.top must be at least 0, not {self.top}")

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """The dynamic heads, or the first of them."""
        return dynamic if self.top is None else top_k_mask(order, self.top, among=dynamic)


class _FixedSize(Condition):
    """A condition of `n` heads, by default the average number of dynamic heads per step."""

    label: str
    """The name, with {n} in place of the number."""

    def __init__(self, n: int | None = None) -> None:
        self.n = n
        self.name = self.label

    def prepare(self, training: TrainingHeads) -> None:
        """Fix the number of heads."""
        self._count, total = training.average if self.n is None else self.n, len(training.ranking.grid)
        if not 1 <= self._count <= total:
            raise UserError(
                f"model.conditions: {type(self).__name__} of {self._count} heads, but the LLM has {total}; set its `n` "
                "between 1 and that (null takes the average number of dynamic heads in the store)"
            )
        self.name = self.label.format(n=self._count)

    def describe(self) -> dict[str, Any]:
        """Name and number of heads."""
        return {"name": self.name, "n": self._count}


class AblateStatic(_FixedSize):
    """Ablate the top `n` of a static ranking, the same at every step.

    Args:
        n: Number of heads; null: the average number of dynamic heads per step.
        ranking: A published file (.json, .yaml, .tsv); null: the store's training samples.

    """

    label = "static {n}"

    def __init__(self, n: int | None = None, ranking: str | None = None) -> None:
        super().__init__(n)
        self.ranking = ranking

    def prepare(self, training: TrainingHeads) -> None:
        """Read the ranking."""
        super().prepare(training)
        ranking, grid = training.ranking, training.ranking.grid
        if self.ranking is not None:
            ranking = read_ranking(self.ranking).on_grid(grid.layers, grid.heads)
        self.chosen = ranking.top_mask(self._count)

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """The static heads."""
        del order
        return self.chosen.to(dynamic.device).expand_as(dynamic)

    def describe(self) -> dict[str, Any]:
        """Name, and the heads by number."""
        return {"name": self.name, "heads": self.chosen.nonzero().flatten().tolist()}


class AblateStaticMinusDynamic(AblateStatic):
    """Ablate the static heads that are not dynamic at the step: harmless if only dynamic heads matter."""

    label = "static {n} minus dynamic"

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """Static heads without the dynamic ones."""
        return super().ablated(dynamic, order) & ~dynamic


class AblateDynamicMinusStatic(AblateStatic):
    """Ablate the dynamic heads that are not static: harmless if a fixed set is enough."""

    label = "dynamic minus static {n}"

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """Dynamic heads without the static ones."""
        return dynamic & ~super().ablated(dynamic, order)


class AblateRandom(_FixedSize):
    """Ablate `n` heads, sampled at random once and the same in the whole run.

    Args:
        n: Number of heads; null: the average number of dynamic heads per step.
        seed: Of the random order of all heads.
        exclude_dynamic: Skip heads that are dynamic at the step, and take the next ones of the random order instead.

    """

    label = "random {n}"

    def __init__(self, n: int | None = None, seed: int = 0, exclude_dynamic: bool = False) -> None:
        super().__init__(n)
        self.seed, self.exclude_dynamic = seed, exclude_dynamic

    def prepare(self, training: TrainingHeads) -> None:
        """Sample the random order."""
        super().prepare(training)
        generator = torch.Generator().manual_seed(self.seed)
        permutation = torch.randperm(len(training.ranking.grid), generator=generator)
        self._order = -permutation.argsort().float()  # of each head its place in the permutation, first ones highest
        self.name += f" seed {self.seed}" + (", not dynamic" if self.exclude_dynamic else "")

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """The first `n` heads of the random order."""
        del order
        allowed = ~dynamic if self.exclude_dynamic else torch.ones_like(dynamic)
        return top_k_mask(self._order.to(dynamic.device).expand(dynamic.shape), self._count, among=allowed)
