"""Prompts side by side: left-padded, prefilled once each, and advanced one token at a time."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from extract.attention import ReservedLayer, reserved_cache
from extract.generation.batching import Batch
from extract.llm import PREFILL_CHUNK

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


SHARED = 256
"""Beginnings shorter than this are not worth a forward of their own."""


def prefill(
    model: "PreTrainedModel",
    batch: Batch,
    capacity: int,
    after: Callable[[], None] | None = None,
    chunk: int | None = PREFILL_CHUNK,
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
