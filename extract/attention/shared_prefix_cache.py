"""KV cache of several answers that continue one prompt: the prompt's keys are kept once."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from extract.attention.kv_cache import ReservedLayer, _empty


class BranchedLayer(DynamicLayer):
    """Answers of several branches of each prompt: their keys are kept apart, the prompt's are kept once.

    `update` returns the branches' own keys alone; `Recorder.prompt` gives the prompt's to the attention function.

    Args:
        prompt: Keys of the prompts, one row each.
        branches: Rows of answers in all.
        capacity: Most tokens of an answer.

    Attributes:
        rows: The branches that the next forward runs; one may stand there several times where nothing is kept.
        again: The next forward runs the last token once more: its keys are used, not kept, and stand in `last`.

    """

    def __init__(self, prompt: ReservedLayer, branches: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prompt, self.branches, self.capacity = prompt, branches, capacity
        self.is_sliding = prompt.is_sliding
        self.rows, self.again, self.length = torch.arange(branches), False, 0
        self.last: tuple[Tensor, Tensor] | None = None

    def get_seq_length(self) -> int:
        """Tokens of prompt and answers before the next forward's."""
        return self.prompt.get_seq_length() + self.length - self.again

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys of prompt and answer, and the position of the first of them."""
        first = self.prompt.first
        return self.get_seq_length() - first + query_length, first

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve the room."""
        super().lazy_initialization(key_states, value_states)
        self._own = [
            _empty(states[:1].expand(self.branches, -1, -1, -1), self.capacity) for states in (key_states, value_states)
        ]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the answers of `rows`, the new token's behind them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new, rows = (key_states, value_states), self.rows.to(key_states.device)
        if self.again:
            self.last = new
            before = (own[rows, :, : self.length - 1] for own in self._own)
            keys, values = (torch.cat(pair, dim=2) for pair in zip(before, new, strict=True))
            return keys, values
        for own, states in zip(self._own, new, strict=True):
            own[:, :, self.length][rows] = states[:, :, 0]
        self.length += 1
        keys, values = (own[rows, :, : self.length] for own in self._own)
        return keys, values

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Give branches the answers of others."""
        for own in self._own:
            own[target.to(own.device), :, : self.length] = own[source.to(own.device), :, : self.length]

    def keep_last(self, rows: Tensor, which: Tensor) -> None:
        """Write a repeated forward's keys over the last ones of `rows`, taken from its places `which`."""
        assert self.last is not None
        for own, states in zip(self._own, self.last, strict=True):
            own[:, :, self.length - 1][rows.to(own.device)] = states[which.to(own.device), :, 0]

    def prompt_keys(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompts."""
        assert self.prompt.keys is not None
        assert self.prompt.values is not None
        return self.prompt.keys, self.prompt.values


def branched_cache(prompts: DynamicCache, branches: int, capacity: int) -> tuple[DynamicCache, list[BranchedLayer]]:
    """A cache for branches of cached prompts, with room for answers of `capacity` tokens; and its layers."""
    layers = []
    for layer in prompts.layers:
        assert isinstance(layer, ReservedLayer)
        layers.append(BranchedLayer(layer, branches, capacity))
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache, layers
