"""Prefill of left-padded prompts, each on its own, and decode steps of the whole batch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from extract.attention import PreallocatedLayer, preallocated_cache
from extract.generation.batching import Batch
from extract.llm import LLM, PREFILL_CHUNK

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


SHORTEST_SHARED = 16
"""Fewest tokens of a common prefix that is reused: copying the keys of fewer gains nothing that could be measured."""


@runtime_checkable
class DecodingWatch(Protocol):
    """Receives the progress of a running batch; it must not wait for the device."""

    def prefilled(self, tokens: int) -> None:
        """Prompt tokens whose keys were added."""

    def decoded(self, rows: int) -> None:
        """A decode step, and how many answers it continued."""


def prefill_prompts(
    model: "PreTrainedModel",
    batch: Batch,
    capacity: int,
    chunk: int | None = PREFILL_CHUNK,
    watch: DecodingWatch | None = None,
) -> "DynamicCache":
    """KV cache of every prompt but its last token, right-aligned, with room for `capacity` tokens.

    Args:
        model: The model.
        batch: The prompts.
        capacity: Tokens of the cache, padding included.
        chunk: Most tokens of one forward, so that memory beside the cache does not grow with the prompt; None: all.
        watch: Receives the progress at every forward.

    """
    cache = preallocated_cache(model, capacity)
    for _ in prefill_each(model, batch, cache, chunk, watch=watch):
        pass
    return cache


def prefill_each(
    model: "PreTrainedModel",
    batch: Batch,
    cache: "DynamicCache",
    chunk: int | None,
    reuse: bool = True,
    watch: DecodingWatch | None = None,
) -> Iterator[int]:
    """Prefill prompt by prompt into `cache`; yields a prompt's row when it is done.

    Each prompt runs unpadded, in a cache of its own: without padding there is no mask of size n × n.

    Args:
        model: The model.
        batch: The prompts.
        cache: Of the batch, empty.
        chunk: Most tokens of one forward; None: all.
        reuse: Whether a prompt takes over the keys of the longest prefix that it shares with an earlier one, as the
            haystacks of a needle grid do; else each prompt runs in full.
        watch: Receives the progress at every forward.

    """
    only = len(batch.tokens) == 1  # a batch of one prompt needs no copy
    # A sliding-window layer no longer holds the keys of a prefix, so nothing can continue from there.
    prefixes = _shared_prefixes(batch) if reuse and not any(cache.is_sliding) else [(0, 0)] * len(batch.tokens)
    paddings = batch.padding.tolist()
    for row, padding in enumerate(paddings):
        # The last token is left to the first decode step, which is recorded.
        prompt = batch.tokens[row : row + 1, padding : batch.width - 1]
        if not prompt.shape[1]:
            continue
        single = cache if only else preallocated_cache(model, prompt.shape[1])
        donor, length = prefixes[row]
        if length:
            copy_prefix(single, cache, donor, paddings[donor], length)
            if watch is not None:
                watch.prefilled(length)
        run_prompt(model, prompt, length, single, chunk, watch)
        yield row  # before the copy: the caller may read what this prompt's forwards recorded
        if not only:
            for layer, source in layer_pairs(cache, single):
                layer.write_row(row, padding, source, len(batch.tokens))


def prefill_continued(
    model: "PreTrainedModel",
    batch: Batch,
    former: "DynamicCache",
    donors: Sequence[tuple[int, int, int]],
    chunk: int | None,
) -> "DynamicCache":
    """KV cache of prompts that continue rows of an earlier batch: only tokens that it has not run are run.

    With sliding windows the earlier keys are incomplete, and the prompts run in full.

    Args:
        model: The model.
        batch: The prompts.
        former: Cache of the earlier batch.
        donors: For each prompt a row of it, the column of that row's first token, and how many of its tokens are held.
        chunk: Most tokens of one forward; None: all.

    """
    cache = preallocated_cache(model, batch.tokens.shape[1])
    for row, (padding, (donor, first, held)) in enumerate(zip(batch.padding.tolist(), donors, strict=True)):
        prompt = batch.tokens[row : row + 1, padding : batch.width - 1]
        single = preallocated_cache(model, prompt.shape[1])
        length = 0 if any(former.is_sliding) else min(held, prompt.shape[1])
        if length:
            copy_prefix(single, former, donor, first, length)
        run_prompt(model, prompt, length, single, chunk, None)
        for layer, source in layer_pairs(cache, single):
            layer.write_row(row, padding, source, len(batch.tokens))
    return cache


def prefill_beside(
    llm: LLM,
    ids: Sequence[int],
    cache: "DynamicCache",
    held: Sequence[tuple[Sequence[int], int]],
    watch: DecodingWatch | None = None,
) -> "DynamicCache":
    """KV cache of one prompt, which takes over the keys of the longest prefix that it shares with a row of a batch.

    Args:
        llm: The model.
        ids: The prompt.
        cache: Of the batch.
        held: Of each of its rows the tokens whose keys it holds, and the column of the first of them.
        watch: Receives the progress.

    """
    prompt, single, length = torch.tensor([ids]), preallocated_cache(llm.model, len(ids)), 0
    # A sliding-window layer no longer holds the keys of a prefix.
    if held and not any(cache.is_sliding):
        prefixes = [common_prefix(prompt[0], torch.tensor(tokens, dtype=torch.long)) for tokens, _ in held]
        donor = max(range(len(prefixes)), key=prefixes.__getitem__)
        if prefixes[donor] >= SHORTEST_SHARED:
            length = prefixes[donor]
            copy_prefix(single, cache, donor, held[donor][1], length)
            if watch is not None:
                watch.prefilled(length)
    run_prompt(llm.model, prompt.to(llm.model.device, non_blocking=True), length, single, llm.prefill_chunk, watch)
    return single


def run_prompt(
    model: "PreTrainedModel",
    prompt: Int[Tensor, "1 token"],
    start: int,
    cache: "DynamicCache",
    chunk: int | None,
    watch: DecodingWatch | None,
) -> None:
    """Add the keys of a prompt from token `start` on."""
    length = prompt.shape[1]
    size = length if chunk is None else chunk
    for first in range(start, length, size):
        part = slice(first, min(first + size, length))
        model(
            input_ids=prompt[:, part],
            position_ids=torch.arange(part.start, part.stop, device=prompt.device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,  # full logits of 8,000 tokens are 1.6 GB
        )
        if watch is not None:
            watch.prefilled(part.stop - part.start)


def layer_pairs(*caches: "DynamicCache") -> Iterator[tuple[PreallocatedLayer, ...]]:
    """Corresponding layers of several caches."""
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        assert all(isinstance(layer, PreallocatedLayer) for layer in layers)
        yield layers


def copy_prefix(single: "DynamicCache", cache: "DynamicCache", donor: int, padding: int, length: int) -> None:
    """Take over the first `length` keys of row `donor`."""
    for target, layer in layer_pairs(single, cache):
        target.update(*layer.between(donor, padding, padding + length))


def _shared_prefixes(batch: Batch) -> list[tuple[int, int]]:
    """For each prompt the earlier one with the longest common prefix, and that prefix's length; (0, 0): none.

    Last prompt tokens do not count, for they are not prefilled. Each distinct prefix is run once in the batch, in
    whatever order prompts come.
    """
    tokens = batch.tokens.cpu()  # every pair is compared: on a GPU the host would wait for each
    prompts = [row[first : batch.width - 1] for row, first in zip(tokens, batch.padding.tolist(), strict=True)]
    best = []
    for row, prompt in enumerate(prompts):
        lengths = [common_prefix(prompt, earlier) for earlier in prompts[:row]]
        longest = max(lengths, default=0)
        best.append((lengths.index(longest), longest) if longest >= SHORTEST_SHARED else (0, 0))
    return best


def common_prefix(one: Int[Tensor, "a"], other: Int[Tensor, "b"]) -> int:
    """Number of first tokens that two prompts share."""
    length = min(len(one), len(other))
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def decode_step(
    model: "PreTrainedModel", batch: Batch, cache: "DynamicCache", keys: int
) -> Float[Tensor, "batch vocabulary"]:
    """One decode step: run token `keys - 1` of every row after what the cache holds; returns its logits."""
    logits: Tensor = model(
        input_ids=batch.tokens[:, keys - 1 : keys],
        attention_mask=batch.real[:, :keys] if batch.padded else None,
        position_ids=batch.positions[:, keys - 1 : keys],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits[:, -1]
