"""Prompts side by side: left-padded, prefilled once each, and advanced one token at a time."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.cache import ReservedLayer, reserved_cache
from extract.scores import kept_keys
from extract.task import Sample

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


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


def prefill(
    model: "PreTrainedModel", batch: Batch, capacity: int, after: Callable[[], None] | None = None
) -> "DynamicCache":
    """Keys of every prompt but its last token, right-aligned in one cache with room for `capacity` tokens.

    Each prompt runs on its own, by the model's own attention: without padding there is no mask, so nothing of size
    n × n. `after` is called behind each.
    """
    cache = reserved_cache(model, capacity)
    for row, padding in enumerate(batch.padding.tolist()):
        prompt = batch.tokens[row : row + 1, padding : batch.width - 1]
        if not prompt.shape[1]:
            continue
        alone = reserved_cache(model, prompt.shape[1])
        model(input_ids=prompt, past_key_values=alone, use_cache=True, logits_to_keep=1)
        if after is not None:
            after()
        for layer, single in zip(cache.layers, alone.layers, strict=True):
            assert isinstance(layer, ReservedLayer)
            assert isinstance(single, ReservedLayer)
            layer.place(row, padding, single, len(batch.tokens))
    return cache


def advance(
    model: "PreTrainedModel", batch: Batch, cache: "DynamicCache", keys: int
) -> Float[Tensor, "batch vocabulary"]:
    """Run token `keys - 1` of every row behind what the cache holds; its logits."""
    logits: Tensor = model(
        input_ids=batch.tokens[:, keys - 1 : keys],
        attention_mask=batch.real[:, :keys],
        position_ids=batch.positions[:, keys - 1 : keys],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits[:, -1]


def reasoning_columns(batch: Batch, keys: int, sink: int, local: int) -> Float[Tensor, "batch key 2"]:
    """What Eq. 2 sums attention over: kept evidence, and all kept keys."""
    kept = kept_keys(batch.real[:, :keys], sink, local)
    return torch.stack([kept & batch.evidence[:, :keys], kept], dim=2).float()
