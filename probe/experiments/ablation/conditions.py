"""Conditions of claim 2: which heads to ablate at a step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.errors import UserError
from extract.generation import StepHeads
from extract.heads import top_k_mask
from extract.utils import NonNegativeInt, PositiveInt, Range, Seed
from probe.heads import HeadCounts, Ranking, read_ranking


@dataclass(frozen=True)
class Preparation:
    """What conditions are prepared with.

    Attributes:
        ranking: Static ranking of all heads, from a store's training samples alone.
        counts: Numbers of heads per step that conditions without a given number are matched to.
        average: Their average.

    """

    ranking: Ranking
    counts: HeadCounts
    average: float


class Condition(ABC):
    """A rule that chooses the heads to ablate."""

    name: str
    """Name in tables and plots, complete once the condition is prepared."""
    matched = False
    """Whether the number of heads is matched to that of the dynamic heads."""

    def members(self) -> "Sequence[Condition]":
        """The conditions that are run for it; more than one for several random sets."""
        return [self]

    def prepare(self, preparation: Preparation) -> None:
        """Fix what does not change during the run. Bad settings raise a UserError here."""
        del preparation

    @abstractmethod
    def ablated(self, heads: StepHeads) -> Bool[Tensor, "row head"]:
        """The heads to ablate at a step."""

    def describe(self) -> dict[str, Any]:
        """Settings that determine the choice, for results.json."""
        return {"name": self.name}


class NoAblation(Condition):
    """No ablation: plain greedy generation."""

    name = "none"

    def ablated(self, heads: StepHeads) -> Tensor:
        """No head."""
        return torch.zeros_like(heads.dynamic)


class AblateDynamic(Condition):
    """Ablate the dynamic heads of the step.

    Args:
        top: At most this many of them, by score, then by attention on the needle; null: all.

    """

    def __init__(self, top: NonNegativeInt | None = None) -> None:
        self.top = top
        self.name = "dynamic" if top is None else f"dynamic top {top}"

    def prepare(self, preparation: Preparation) -> None:
        """Check the number."""
        del preparation
        if self.top is not None and self.top < 0:
            raise UserError(f"model.conditions: AblateDynamic.top must be at least 0, not {self.top}")

    def ablated(self, heads: StepHeads) -> Tensor:
        """The dynamic heads, or the first of them."""
        return heads.dynamic if self.top is None else top_k_mask(heads.order, self.top, among=heads.dynamic)


class _FirstHeads(Condition):
    """A condition of the first heads of a fixed order, by default as many as are dynamic on average.

    Args:
        n: Number of heads; null: the average that `Preparation` has, rounded, at least 1.
        per_step: A number sampled anew at every step from the distribution whose average that is, so that both agree
            without rounding. It depends on the prompt and the step alone: conditions that share it are equal in number.

    """

    label: str
    """The name, with {n} in place of the number."""

    def __init__(self, n: PositiveInt | None = None, per_step: bool = False) -> None:
        if per_step and n is not None:
            raise UserError(f"model.conditions: {type(self).__name__} with per_step takes no n; leave it null")
        self.n, self.per_step, self.matched = n, per_step, n is None
        self.name = self.label.format(n="per step" if per_step else n or "average")

    def prepare(self, preparation: Preparation) -> None:
        """Fix the numbers and the order of heads."""
        total, average = len(preparation.ranking.grid), preparation.average
        self._counts, self._n = preparation.counts, max(1, round(average)) if self.n is None else self.n
        if not 1 <= self._n <= total:
            raise UserError(
                f"model.conditions: {type(self).__name__} of {self._n} heads, but the LLM has {total}; set its `n` "
                "between 1 and that (null takes the average number of dynamic heads)"
            )
        self.name = self.label.format(n=f"{average:.2f} per step" if self.per_step else self._n)
        self._order = self.order(preparation.ranking)

    @abstractmethod
    def order(self, ranking: Ranking) -> Float[Tensor, "head"]:
        """What orders all heads, higher first."""

    def first(self, heads: StepHeads, among: Bool[Tensor, "row head"] | None = None) -> Bool[Tensor, "row head"]:
        """The first heads, as many as the step has to have; others than `among` are skipped."""
        order = self._order.to(heads.dynamic.device, non_blocking=True).expand(heads.dynamic.shape)
        return top_k_mask(order, self._numbers(heads) if self.per_step else self._n, among)

    def _numbers(self, heads: StepHeads) -> Int[Tensor, "row"]:
        # The samples of a step share one stream, so that a number does not depend on who else is in the batch.
        samples, steps = heads.sample.numpy(), heads.step.numpy()
        uniform = np.empty(len(samples))
        for step in np.unique(steps):
            rows = steps == step
            stream = np.random.default_rng(int(step)).random(int(samples[rows].max()) + 1)
            uniform[rows] = stream[samples[rows]]
        return self._counts.quantile(torch.from_numpy(uniform)).to(heads.dynamic.device, non_blocking=True)

    def describe(self) -> dict[str, Any]:
        """Name, and number of heads."""
        return {"name": self.name, "n": None if self.per_step else self._n, "matched": self.matched}


class AblateStatic(_FirstHeads):
    """Ablate the top `n` of a static ranking, the same at every step.

    Args:
        n: Number of heads; null: the average number of dynamic heads per step.
        ranking: A published file (.json, .yaml, .tsv); null: the store's training samples.
        per_step: The top of the ranking, but as many as a number sampled at each step.

    """

    label = "static {n}"

    def __init__(self, n: PositiveInt | None = None, ranking: str | None = None, per_step: bool = False) -> None:
        super().__init__(n, per_step)
        self.ranking = ranking

    def order(self, ranking: Ranking) -> Tensor:
        """By rank."""
        if self.ranking is not None:
            ranking = read_ranking(self.ranking).on_grid(ranking.grid.layers, ranking.grid.heads)
        self._heads = ranking.top(self._counts.most if self.per_step else self._n)
        order = torch.full((len(ranking.grid),), -torch.inf)
        order[self._heads] = -torch.arange(len(self._heads)).float()
        return order

    def ablated(self, heads: StepHeads) -> Tensor:
        """The static heads."""
        return self.first(heads)

    def describe(self) -> dict[str, Any]:
        """Name, number, and the static heads in the order of the ranking."""
        return {**super().describe(), "heads": self._heads}


class AblateStaticMinusDynamic(AblateStatic):
    """Ablate the static heads that are not dynamic at the step: harmless if only dynamic heads matter."""

    label = "static {n} minus dynamic"

    def ablated(self, heads: StepHeads) -> Tensor:
        """Static heads without the dynamic ones."""
        return self.first(heads) & ~heads.dynamic


class AblateDynamicMinusStatic(AblateStatic):
    """Ablate the dynamic heads that are not static: harmless if a fixed set is enough."""

    label = "dynamic minus static {n}"

    def ablated(self, heads: StepHeads) -> Tensor:
        """Dynamic heads without the static ones."""
        return heads.dynamic & ~self.first(heads)


class AblateRandom(_FirstHeads):
    """Ablate `n` heads, sampled at random once and the same in the whole run.

    Args:
        n: Number of heads; null: the average number of dynamic heads per step.
        seed: Of the random order of all heads.
        exclude_dynamic: Skip heads that are dynamic at the step, and take the next ones of the random order instead.
        per_step: The first of the order, but as many as a number sampled at each step.
        sets: Number of random sets, by successive seeds, each of which is run. Their results are averaged; intervals
            contain the variance between sets.

    """

    label = "random {n}"

    def __init__(
        self,
        n: PositiveInt | None = None,
        seed: Seed = 0,
        exclude_dynamic: bool = False,
        per_step: bool = False,
        sets: Annotated[int, Range(1, 1000)] = 1,
    ) -> None:
        super().__init__(n, per_step)
        if sets < 1:
            raise UserError(f"model.conditions: AblateRandom.sets must be at least 1, not {sets}")
        self.seed, self.exclude_dynamic, self.sets = seed, exclude_dynamic, sets
        self.name += self._suffix

    @property
    def _suffix(self) -> str:
        seeds = f" seed {self.seed}" if self.sets == 1 else f", {self.sets} sets from seed {self.seed}"
        return seeds + (", not dynamic" if self.exclude_dynamic else "")

    def members(self) -> Sequence[Condition]:
        """One condition for each set."""
        seeds = range(self.seed, self.seed + self.sets)
        return [AblateRandom(self.n, seed, self.exclude_dynamic, self.per_step) for seed in seeds]

    def prepare(self, preparation: Preparation) -> None:
        """Fix the numbers and the random order."""
        super().prepare(preparation)
        self.name += self._suffix

    def order(self, ranking: Ranking) -> Tensor:
        """A permutation of all heads."""
        permutation = torch.randperm(len(ranking.grid), generator=torch.Generator().manual_seed(self.seed))
        return -permutation.argsort().float()  # of each head its place in the permutation, first ones highest

    def ablated(self, heads: StepHeads) -> Tensor:
        """The first heads of the random order."""
        return self.first(heads, among=~heads.dynamic if self.exclude_dynamic else None)
