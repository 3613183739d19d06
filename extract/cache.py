"""A KV cache that grows in place: a decode step writes one key instead of copying all of them."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ReservedLayer(DynamicLayer):
    """A full-attention layer with room for `capacity` tokens, allocated on the first update."""

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve the room; `keys` and `values` are views of its filled part."""
        super().lazy_initialization(key_states, value_states)
        self._keys = self._room(key_states)
        self._values = self._room(value_states)
        self.keys, self.values = self._keys[:, :, :0], self._values[:, :, :0]

    def _room(self, states: Tensor) -> Tensor:
        batch, heads, _, size = states.shape
        return states.new_zeros((batch, heads, self.capacity, size))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values behind the filled part; returns all of it."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def place(self, row: int, start: int, single: "ReservedLayer", batch: int) -> None:
        """Copy the keys of a single sample into a row of this batch; what lies before them stays zero."""
        assert single.keys is not None
        assert single.values is not None
        if not self.is_initialized:
            self.lazy_initialization(single.keys.expand(batch, -1, -1, -1), single.values.expand(batch, -1, -1, -1))
        end = start + single.get_seq_length()
        self._keys[row, :, start:end] = single.keys[0]
        self._values[row, :, start:end] = single.values[0]
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]

    def take(self, rows: Tensor) -> None:
        """Go on with some rows of the batch alone."""
        assert self.keys is not None
        length = self.get_seq_length()
        self._keys, self._values = self._keys[rows.to(self._keys.device)], self._values[rows.to(self._values.device)]
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]


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
        self.rows, self.again, self.length = torch.arange(branches), False, 0
        self.last: tuple[Tensor, Tensor] | None = None

    def get_seq_length(self) -> int:
        """Tokens of prompt and answers before the next forward's."""
        return self.prompt.get_seq_length() + self.length - self.again

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve the room."""
        super().lazy_initialization(key_states, value_states)
        self._own = [self._room(states) for states in (key_states, value_states)]

    def _room(self, states: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros((self.branches, heads, self.capacity, size))

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


def reserved_cache(model: "PreTrainedModel", capacity: int) -> DynamicCache:
    """A cache with room for `capacity` tokens in every layer.

    Raises:
        UserError: a layer keeps anything else than all keys, such as a sliding window.

    """
    cache = DynamicCache(config=model.config)
    others = sorted({type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer})
    if others:
        raise UserError(
            f"{type(model).__name__}: its cache has layers of {', '.join(others)}, which hold a part of the keys; only "
            "models with full attention in every layer are supported"
        )
    cache.layers = [ReservedLayer(capacity) for _ in cache.layers]
    return cache
