"""A KV cache that grows in place: a decode step writes one key instead of copying all of them."""

from typing import TYPE_CHECKING, Any

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

    def own_length(self) -> int:
        """Tokens that this layer itself holds."""
        return 0 if self.keys is None else self.keys.shape[2]

    def _room(self, states: Tensor) -> Tensor:
        batch, heads, _, size = states.shape
        return states.new_zeros((batch, heads, self.capacity, size))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values behind the filled part; returns all of it."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.own_length()
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


class BranchedLayer(ReservedLayer):
    """Answers of several branches of each prompt: their keys are kept apart, the prompt's are kept once.

    `update` returns the branches' own keys alone; `Recorder.prompt` gives the prompt's to the attention function.

    Args:
        prompt: Keys of the prompts, one row each.
        capacity: Most tokens of an answer.

    """

    def __init__(self, prompt: ReservedLayer, capacity: int) -> None:
        super().__init__(capacity)
        self.prompt = prompt

    def get_seq_length(self) -> int:
        """Tokens of prompt and answers so far."""
        return self.prompt.get_seq_length() + self.own_length()

    def prompt_keys(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompts."""
        assert self.prompt.keys is not None
        assert self.prompt.values is not None
        return self.prompt.keys, self.prompt.values

    def last(self) -> tuple[Tensor, Tensor]:
        """A copy of the last token's keys and values."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys[:, :, -1:].clone(), self.values[:, :, -1:].clone()

    def put_last(self, keys: Tensor, values: Tensor) -> None:
        """Write over the last token's keys and values."""
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, -1:], self.values[:, :, -1:] = keys, values


def branched_cache(prompts: DynamicCache, capacity: int) -> tuple[DynamicCache, list[BranchedLayer]]:
    """A cache for branches of cached prompts, with room for answers of `capacity` tokens; and its layers."""
    layers = []
    for layer in prompts.layers:
        assert isinstance(layer, ReservedLayer)
        layers.append(BranchedLayer(layer, capacity))
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
