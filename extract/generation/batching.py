"""Prompts side by side in one left-padded batch."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from extract.llm import narrowest_window
from extract.tasks import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.scores import ExcludedKeys, kept_keys

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def warn_of_windows(model: "PreTrainedModel", samples: Sequence[Sample]) -> None:
    """Warn where a layer's window cannot hold a whole evidence span: its heads then see a part of it at most."""
    window = narrowest_window(model)
    longest = max((end - start for sample in samples for start, end in sample.evidence), default=0)
    if window is not None and longest > window:
        warnings.warn(
            f"{type(model).__name__}: layers with a window of {window} tokens cannot see evidence of {longest} tokens "
            "as a whole; scores of their heads count the part inside",
            stacklevel=2,
        )


@dataclass(frozen=True)
class Batch:
    """Left-padded prompts with room for the answers; `forced` is -1 where the model chooses the token itself."""

    tokens: Int[Tensor, "batch capacity"]
    real: Bool[Tensor, "batch capacity"]
    evidence: Bool[Tensor, "batch capacity"]
    forced: Int[Tensor, "batch step"]
    budgets: Int[Tensor, "batch"]
    width: int

    @functools.cached_property
    def padding(self) -> Int[Tensor, "batch"]:
        """Padded positions before each prompt."""
        return (~self.real).sum(dim=1)

    @functools.cached_property
    def positions(self) -> Int[Tensor, "batch capacity"]:
        """Position of each token in its own unpadded sequence."""
        return (self.real.cumsum(dim=1) - 1).clamp(min=0)

    def branches(self, count: int) -> "Batch":
        """Every prompt `count` times in a row, each with an answer of its own."""
        return self.take(torch.arange(len(self.tokens), device=self.tokens.device).repeat_interleave(count))

    def take(self, rows: Int[Tensor, "some"]) -> "Batch":
        """A copy of some rows."""
        names = ("tokens", "real", "evidence", "forced", "budgets")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def pad(samples: Sequence[Sample], fill: int, device: torch.device) -> Batch:
    """Samples in one batch, their prompts ending at the same column."""
    width = max(len(sample.ids) for sample in samples)
    shape = (len(samples), width + max(sample.budget for sample in samples))
    tokens = torch.full(shape, fill, dtype=torch.long)
    real, evidence = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, sample in enumerate(samples):
        first = width - len(sample.ids)
        tokens[row, first:width] = torch.tensor(sample.ids)
        real[row, :first] = False
        for start, end in sample.evidence:
            evidence[row, first + start : first + end] = True
    budgets = torch.tensor([sample.budget for sample in samples])
    forced = torch.full((len(samples), shape[1] - width), -1)
    for row, sample in enumerate(samples):
        if sample.forced is not None:
            forced[row, : sample.budget] = torch.tensor(sample.forced)
    return Batch(tokens.to(device), real.to(device), evidence.to(device), forced.to(device), budgets.to(device), width)


def reasoning_columns(batch: Batch, keys: int, excluded: ExcludedKeys) -> Float[Tensor, "batch key 2"]:
    """What Eq. 2 sums attention over: kept evidence, and all kept keys."""
    kept = kept_keys(batch.real[:, :keys], excluded)
    return torch.stack([kept & batch.evidence[:, :keys], kept], dim=2).float()
