"""A preallocated KV cache: a decode step writes one key in place instead of copying all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in a buffer for `capacity` tokens, allocated at the first update.

    Args:
        capacity: Tokens in all.
        window: Sliding window: most keys that a query sees, its own included; None: all. Such a layer keeps only its
            last keys, in a buffer of up to three windows.

    Attributes:
        peers: Layers whose buffers are allocated with this one's, as far as they are of the same shape. One by one
            they would lie between what layers have freed, which a C library then cannot give back.
        first: Position in the sequence of the first key in the buffer.
        keys, values: The filled part of the buffers. [batch, kvhead, key, size].

    """

    def __init__(self, capacity: int, window: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity, self.window, self.first = capacity, window, 0
        self.is_sliding = window is not None
        self.peers: Sequence[PreallocatedLayer] = ()
        self._reserved: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers, with the batch, heads and sizes of the first keys and values."""
        length = self._buffer_length(0, key_states.shape[2])
        super().lazy_initialization(key_states, value_states)
        reserved, self._reserved = self._reserved or (None, None), None
        self._keys, self._values = (
            buffer if buffer is not None and _fits(buffer, like, length) else empty_buffer(like, length)
            for buffer, like in zip(reserved, (key_states, value_states), strict=True)
        )
        self.keys, self.values = self._keys[:, :, :0], self._values[:, :, :0]
        for peer in self.peers:
            peer._reserved = self._keys.new_zeros(self._keys.shape), self._values.new_zeros(self._values.shape)
        self.peers = ()

    def _buffer_length(self, held: int, new: int) -> int:
        """Length of a buffer for the keys held, the new ones, and those to come."""
        if self.window is None:
            return self.capacity
        # Room for two windows to come: kept keys are moved once in that many steps, not in each of them.
        return held + max(new, min(2 * self.window, self.capacity - self.get_seq_length()))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values; returns all that a new query may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        start, visible = self._held, self._visible
        # A full buffer of a window holds keys that no later query sees: only the visible ones move on.
        if self.window is not None and start + new > self._keys.shape[2]:
            self._move_to_new_buffer(visible, new)
            start = visible
        self._keys[:, :, start : start + new] = key_states
        self._values[:, :, start : start + new] = value_states
        self._set_filled(start + new)
        # A window's buffer may hold keys that no new query sees: they come before the visible ones.
        return self.keys[:, :, start - visible :], self.values[:, :, start - visible :]  # type: ignore[index]

    def _set_filled(self, length: int) -> None:
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def _move_to_new_buffer(self, kept: int, new: int) -> None:
        """Move the last `kept` keys to the start of another buffer, with place for `new` ones."""
        length, held = self._buffer_length(kept, new), self._held
        for name in ("_keys", "_values"):
            states = getattr(self, name)
            # Another buffer, for the source and the target of the copy may overlap within one.
            setattr(self, name, empty_buffer(states, length))
            getattr(self, name)[:, :, :kept] = states[:, :, held - kept : held]
        self.first += held - kept

    @property
    def _held(self) -> int:
        """Number of keys in the buffer."""
        return 0 if self.keys is None else self.keys.shape[2]

    @property
    def _visible(self) -> int:
        """Number of keys that the next query may see, its own not included."""
        return self._held if self.window is None else min(self._held, self.window - 1)

    def get_seq_length(self) -> int:
        """Tokens processed, those included that have left the window."""
        return self.first + self._held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys that the next update returns, and the position of the first of them."""
        return self._visible + query_length, self.get_seq_length() - self._visible

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens.

        Raises:
            RuntimeError: keys that have left the window would be visible again.

        """
        super().crop(tokens_to_remove)
        # A window short of keys is right only at the start of a sequence, where none has left it.
        if self.window is not None and self.first and self._held < self.window - 1:
            raise RuntimeError("a sliding-window layer cannot be cropped by so many tokens")

    def between(self, row: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a row between two positions of the sequence, both in the buffer."""
        span = slice(start - self.first, stop - self.first)
        return self._keys[row : row + 1, :, span], self._values[row : row + 1, :, span]

    def rows_between(self, rows: Sequence[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of several rows between two positions of the sequence, both in the buffer, as a copy."""
        chosen, span = list(rows), slice(start - self.first, stop - self.first)
        return self._keys[chosen, :, span], self._values[chosen, :, span]

    def write_row(self, row: int, start: int, single: "PreallocatedLayer", batch: int) -> None:
        """Copy the keys of a single sample into a row of a batch, from column `start` on; the padding stays zero."""
        assert single.keys is not None
        assert single.values is not None
        end = start + single.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(single.keys.expand(batch, -1, -1, -1), single.values.expand(batch, -1, -1, -1))
            # All rows end at the same column, so a window drops the same first columns of each of them.
            if self.window is not None:
                self.first = max(0, end - (self.window - 1))
            self._set_filled(end - self.first)
        count = min(single._held, end - self.first)
        last = slice(end - self.first - count, end - self.first)
        self._keys[row, :, last] = single.keys[0, :, single._held - count :]
        self._values[row, :, last] = single.values[0, :, single._held - count :]

    def take_over(self, other: "PreallocatedLayer", shift: int) -> None:
        """Copy the keys of another layer, `shift` columns further left, where this one has such columns.

        A negative shift leaves columns of padding before them.
        """
        if not other.is_initialized:
            return
        end = other.get_seq_length() - shift
        self.lazy_initialization(other._keys[:, :, :1], other._values[:, :, :1])
        self.first = 0 if self.window is None else max(0, end - (self.window - 1))
        start = max(self.first, other.first - shift)
        for name in ("_keys", "_values"):
            kept = getattr(other, name)[:, :, start + shift - other.first : other._held]
            getattr(self, name)[:, :, start - self.first : end - self.first] = kept
        self._set_filled(end - self.first)

    def close_gap(self, row: int) -> None:
        """Remove a row of the batch, whose place the last row takes."""
        if not self.is_initialized:
            return
        for name in ("_keys", "_values"):
            states = getattr(self, name)
            states[row] = states[-1]
            setattr(self, name, states[:-1])
        self._set_filled(self._held)

    def select_rows(self, rows: Tensor) -> None:
        """Keep only some rows of the batch."""
        length = self._held
        self._keys, self._values = self._keys[rows.to(self._keys.device)], self._values[rows.to(self._values.device)]
        self._set_filled(length)


def _fits(buffer: Tensor, like: Tensor, length: int) -> bool:
    """Whether a buffer is one for `length` keys as these."""
    batch, heads, _, size = like.shape
    same = buffer.dtype == like.dtype and buffer.device == like.device
    return same and buffer.shape == (batch, heads, length, size)


def empty_buffer(like: Tensor, length: int) -> Tensor:
    """Zeros for keys or values of `length` tokens, otherwise shaped as `like`."""
    batch, heads, _, size = like.shape
    return like.new_zeros((batch, heads, length, size))


def preallocated_cache(model: "PreTrainedModel", capacity: int) -> DynamicCache:
    """A cache with buffers for `capacity` tokens in every layer.

    A layer whose sliding window holds all of them is an ordinary one.

    Raises:
        UserError: a layer keeps anything else than keys and values, such as the state of linear attention.

    """
    cache = DynamicCache(config=model.config)
    layers = []
    for layer in cache.layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UserError(
                f"{type(model).__name__}: its cache has layers of {type(layer).__name__}; only models that attend to "
                "keys in every layer are supported"
            )
        # Where no key ever leaves the window, prefixes can be shared as in any other layer.
        window = getattr(layer, "sliding_window", None)
        layers.append(PreallocatedLayer(capacity, None if window is None or window >= capacity else window))
    cache.layers = list(layers)
    whole = [layer for layer in layers if layer.window is None]
    # Over several devices a layer's buffer belongs to the device of the layer, which is known with its first keys.
    if whole and len(set(getattr(model, "hf_device_map", {}).values())) < 2:
        whole[0].peers = whole[1:]
    return cache
