"""A KV cache that grows in place: a decode step writes one key instead of copying all of them."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ReservedLayer(DynamicLayer):
    """A layer with room for `capacity` tokens, allocated on the first update.

    Args:
        capacity: Tokens in all.
        window: Most keys that a query sees, its own included; None: all. Of a window's layer only the last keys are
            kept, in a room of about twice the window.

    Attributes:
        first: Position of the first key held.

    """

    def __init__(self, capacity: int, window: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity, self.window, self.first = capacity, window, 0
        self.is_sliding = window is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve the room; `keys` and `values` are views of its filled part."""
        room = self._room_behind(0, key_states.shape[2])
        super().lazy_initialization(key_states, value_states)
        self._keys, self._values = _empty(key_states, room), _empty(value_states, room)
        self.keys, self.values = self._keys[:, :, :0], self._values[:, :, :0]

    def _room_behind(self, held: int, new: int) -> int:
        """Length of a room for `held` tokens, `new` ones, and those to come."""
        if self.window is None:
            return self.capacity
        return held + max(new, min(2 * self.window, self.capacity - self.get_seq_length()))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values behind the filled part; returns all that a new query may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        start, visible = self._held, self._visible
        if self.window is not None and start + new > self._keys.shape[2]:
            self._move(visible, new)
            start = visible
        self._keys[:, :, start : start + new] = key_states
        self._values[:, :, start : start + new] = value_states
        self._fill(start + new)
        return self.keys[:, :, start - visible :], self.values[:, :, start - visible :]  # type: ignore[index]

    def _fill(self, length: int) -> None:
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def _move(self, kept: int, new: int) -> None:
        """Take the last `kept` keys into another room, with place for `new` ones."""
        room = self._room_behind(kept, new)
        former = self._held
        for name in ("_keys", "_values"):
            states = getattr(self, name)
            setattr(self, name, _empty(states, room))
            getattr(self, name)[:, :, :kept] = states[:, :, former - kept : former]
        self.first += former - kept

    @property
    def _held(self) -> int:
        """Number of keys in the room."""
        return 0 if self.keys is None else self.keys.shape[2]

    @property
    def _visible(self) -> int:
        """Number of keys that the next query may see, its own not included."""
        return self._held if self.window is None else min(self._held, self.window - 1)

    def get_seq_length(self) -> int:
        """Tokens seen, those that a window has passed included."""
        return self.first + self._held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys that the next update returns, and the position of the first of them."""
        return self._visible + query_length, self.get_seq_length() - self._visible

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens.

        Raises:
            RuntimeError: keys would be missing that the window has passed.

        """
        super().crop(tokens_to_remove)
        if self.window is not None and self.first and self._held < self.window - 1:
            raise RuntimeError("a layer with a window cannot go back by so many tokens")

    def part(self, row: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a row between two positions, both held."""
        span = slice(start - self.first, stop - self.first)
        return self._keys[row : row + 1, :, span], self._values[row : row + 1, :, span]

    def place(self, row: int, start: int, single: "ReservedLayer", batch: int) -> None:
        """Copy the keys of a single sample into a row of this batch; what lies before them stays zero."""
        assert single.keys is not None
        assert single.values is not None
        if not self.is_initialized:
            self.lazy_initialization(single.keys.expand(batch, -1, -1, -1), single.values.expand(batch, -1, -1, -1))
        end = start + single.get_seq_length()
        if self.window is not None:
            self.first = max(0, end - (self.window - 1))
        count = min(single._held, end - self.first)
        last = slice(end - self.first - count, end - self.first)
        self._keys[row, :, last] = single.keys[0, :, single._held - count :]
        self._values[row, :, last] = single.values[0, :, single._held - count :]
        self._fill(end - self.first)

    def take(self, rows: Tensor) -> None:
        """Go on with some rows of the batch alone."""
        length = self._held
        self._keys, self._values = self._keys[rows.to(self._keys.device)], self._values[rows.to(self._values.device)]
        self._fill(length)


def _empty(like: Tensor, length: int) -> Tensor:
    """Zeros for keys or values of `length` tokens."""
    batch, heads, _, size = like.shape
    return like.new_zeros((batch, heads, length, size))


def reserved_cache(model: "PreTrainedModel", capacity: int) -> DynamicCache:
    """A cache with room for `capacity` tokens in every layer. A window that holds all of them is none.

    Raises:
        UserError: a layer keeps anything else than keys, such as the state of linear attention.

    """
    cache = DynamicCache(config=model.config)
    layers = []
    for layer in cache.layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UserError(
                f"{type(model).__name__}: its cache has layers of {type(layer).__name__}; only models that attend to "
                "keys in every layer are supported"
            )
        window = getattr(layer, "sliding_window", None)
        layers.append(ReservedLayer(capacity, None if window is None or window >= capacity else window))
    cache.layers = list(layers)
    return cache
