"""Prompts side by side: left-padded, prefilled once each, and advanced one token at a time."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.cache import ReservedLayer, reserved_cache
from extract.llm import CHUNK
from extract.scores import kept_keys
from extract.task import Sample

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

SHARED = 256
"""Beginnings shorter than this are not worth a forward of their own."""


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
    model: "PreTrainedModel",
    batch: Batch,
    capacity: int,
    after: Callable[[], None] | None = None,
    chunk: int | None = CHUNK,
) -> "DynamicCache":
    """Keys of every prompt but its last token, right-aligned in one cache with room for `capacity` tokens.

    Each prompt runs on its own: without padding there is no mask of size n × n. A prompt that begins as an earlier one
    of the batch goes on from that one's keys, as the haystacks of a needle grid do.

    Args:
        model: The model.
        batch: The prompts.
        capacity: Tokens of the cache.
        after: Called behind each prompt, each of which then runs whole.
        chunk: Most tokens of one forward, so that memory beside the cache does not grow with the prompt; None: all.

    """
    cache = reserved_cache(model, capacity)
    only = len(batch.tokens) == 1  # a prompt without company runs in the batch's own cache
    shared = [(0, 0)] * len(batch.tokens) if after or _windowed(cache) else _shared_beginnings(batch)
    for row, padding in enumerate(batch.padding.tolist()):
        prompt = batch.tokens[row : row + 1, padding : batch.width - 1]
        if not prompt.shape[1]:
            continue
        alone = cache if only else reserved_cache(model, prompt.shape[1])
        donor, length = shared[row]
        if length:
            _take_over(alone, cache, donor, int(batch.padding[donor]), length)
        _run(model, prompt, length, alone, chunk)
        if after is not None:
            after()
        if not only:
            for layer, single in _pairs(cache, alone):
                layer.place(row, padding, single, len(batch.tokens))
    return cache


def _run(
    model: "PreTrainedModel", prompt: Int[Tensor, "1 token"], start: int, cache: "DynamicCache", chunk: int | None
) -> None:
    """Add the keys of a prompt from `start` on."""
    length = prompt.shape[1]
    size = length if chunk is None else chunk
    for first in range(start, length, size):
        part = slice(first, min(first + size, length))
        model(
            input_ids=prompt[:, part],
            position_ids=torch.arange(part.start, part.stop, device=prompt.device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )


def _pairs(*caches: "DynamicCache") -> Iterator[tuple[ReservedLayer, ...]]:
    """Layers of several caches side by side."""
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        assert all(isinstance(layer, ReservedLayer) for layer in layers)
        yield layers


def _windowed(cache: "DynamicCache") -> bool:
    """Whether a layer forgets keys, so that a prompt cannot be entered in its middle."""
    return any(cache.is_sliding)


def _take_over(alone: "DynamicCache", cache: "DynamicCache", donor: int, padding: int, length: int) -> None:
    """The first keys of an earlier prompt."""
    for single, layer in _pairs(alone, cache):
        single.update(*layer.part(donor, padding, padding + length))


def _shared_beginnings(batch: Batch) -> list[tuple[int, int]]:
    """For each prompt the earlier one that begins most alike, and how many tokens of it can be taken over.

    The last prompt token is not counted, for it is not prefilled. In sum, each different beginning runs once, in
    whatever order prompts come.
    """
    prompts = [row[first : batch.width - 1] for row, first in zip(batch.tokens, batch.padding.tolist(), strict=True)]
    best = []
    for row, prompt in enumerate(prompts):
        alike = [_alike(prompt, earlier) for earlier in prompts[:row]]
        length = max(alike, default=0)
        best.append((alike.index(length), length) if length >= SHARED else (0, 0))
    return best


def _alike(one: Int[Tensor, "a"], other: Int[Tensor, "b"]) -> int:
    """Number of tokens at which two prompts begin alike."""
    length = min(len(one), len(other))
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


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
