"""Which heads an experiment ablates at a step: the conditions of claim 2."""

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
class Known:
    """What conditions may know before the run, none of it from the prompts that are evaluated.

    Attributes:
        layers, heads: Of the LLM, heads being those of one layer.
        ranking: Static ranking of all heads.
        average: Average number of dynamic heads of a step, rounded: the n of static and random.

    """

    layers: int
    heads: int
    ranking: Ranking
    average: int


class Condition(ABC):
    """A rule for ablating heads."""

    name: str
    """Names the condition in tables and figures, complete once it is prepared."""

    def prepare(self, known: Known) -> None:
        """Fix what does not change during the run. Bad settings raise a UserError here."""
        del known

    @abstractmethod
    def ablated(self, dynamic: Bool[Tensor, "row head"], order: Float[Tensor, "row head"]) -> Bool[Tensor, "row head"]:
        """The heads to ablate at a step, given its dynamic heads and their order (higher first)."""

    def describe(self) -> dict[str, Any]:
        """What determines the choice, for the record of a run."""
        return {"name": self.name}


class NoAblation(Condition):
    """Ablate nothing: plain greedy generation."""

    name = "none"

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """No head."""
        del order
        return torch.zeros_like(dynamic)


class AblateDynamic(Condition):
    """Ablate the heads that score at this very step.

    Args:
        top: At most this many of them, by score and then attention on the needle; null: all.

    """

    def __init__(self, top: int | None = None) -> None:
        self.top = top
        self.name = "dynamic" if top is None else f"dynamic top {top}"

    def prepare(self, known: Known) -> None:
        """Check the number."""
        del known
        if self.top is not None and self.top < 0:
            raise UserError(f"model.conditions: AblateDynamic.top must be at least 0, not {self.top}")

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """The dynamic heads, or the first of them."""
        return dynamic if self.top is None else top_k_mask(order, self.top, among=dynamic)


class _FixedSize(Condition):
    """A condition of `n` heads, by default as many as are dynamic on average."""

    label: str
    """The name, with {n} where the number stands."""

    def __init__(self, n: int | None = None) -> None:
        self.n = n
        self.name = self.label

    def prepare(self, known: Known) -> None:
        """Settle how many heads."""
        total = known.layers * known.heads
        self._count = known.average if self.n is None else self.n
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
        n: How many; null: as many as are dynamic on average.
        ranking: A published file (.json, .yaml, .tsv); null: the store's training samples.

    """

    label = "static {n}"

    def __init__(self, n: int | None = None, ranking: str | None = None) -> None:
        super().__init__(n)
        self.ranking = ranking

    def prepare(self, known: Known) -> None:
        """Read the ranking."""
        super().prepare(known)
        ranking = known.ranking
        if self.ranking is not None:
            ranking = read_ranking(self.ranking).on_grid(known.layers, known.heads)
        self.chosen = torch.zeros(known.layers * known.heads, dtype=torch.bool)
        self.chosen[ranking.top(self._count)] = True

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """The static heads."""
        del order
        return self.chosen.to(dynamic.device).expand_as(dynamic)

    def describe(self) -> dict[str, Any]:
        """The heads themselves."""
        return {"name": self.name, "heads": self.chosen.nonzero().flatten().tolist()}


class AblateStaticMinusDynamic(AblateStatic):
    """Ablate the static heads that do not score at this step: if only dynamic heads matter, it does no harm."""

    label = "static {n} minus dynamic"

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """Static heads without the dynamic ones."""
        return super().ablated(dynamic, order) & ~dynamic


class AblateDynamicMinusStatic(AblateStatic):
    """Ablate the dynamic heads that are not static: what a fixed set misses."""

    label = "dynamic minus static {n}"

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """Dynamic heads without the static ones."""
        return dynamic & ~super().ablated(dynamic, order)


class AblateRandom(_FixedSize):
    """Ablate `n` heads of one random draw, the same in the whole run.

    Args:
        n: How many; null: as many as are dynamic on average.
        seed: Of the draw.
        exclude_dynamic: Pass over heads that score at a step and take the next of the draw instead.

    """

    label = "random {n}"

    def __init__(self, n: int | None = None, seed: int = 0, exclude_dynamic: bool = False) -> None:
        super().__init__(n)
        self.seed, self.exclude_dynamic = seed, exclude_dynamic

    def prepare(self, known: Known) -> None:
        """Draw."""
        super().prepare(known)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(known.layers * known.heads, generator=generator)
        self._order = -drawn.argsort().float()  # the place of each head in the draw, first ones highest
        self.name += f" seed {self.seed}" + (", not dynamic" if self.exclude_dynamic else "")

    def ablated(self, dynamic: Tensor, order: Tensor) -> Tensor:
        """The first heads of the draw."""
        del order
        allowed = ~dynamic if self.exclude_dynamic else torch.ones_like(dynamic)
        return top_k_mask(self._order.to(dynamic.device).expand(dynamic.shape), self._count, among=allowed)
