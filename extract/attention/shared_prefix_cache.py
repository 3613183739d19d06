"""KV cache of several answers to one prompt: the prompt's keys are kept once, each answer keeps its own."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from extract.attention.kv_cache import PreallocatedLayer, empty_buffer


class BranchedLayer(DynamicLayer):
    """Keys and values of answers that branch from cached prompts.

    `update` returns only the answers' own keys; the attention function gets the prompts' from the plan's
    `SharedPrefix`, which `prompt_keys` fills.

    Args:
        prompt: Keys of the prompts, one row each.
        branches: Number of answers in all.
        capacity: Most tokens of an answer.

    """

    def __init__(self, prompt: PreallocatedLayer, branches: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._prompt, self._branches, self._capacity = prompt, branches, capacity
        self.is_sliding = prompt.is_sliding
        self._rows, self._rerun, self._length = torch.arange(branches), False, 0
        self._rerun_states: tuple[Tensor, Tensor] | None = None

    def next_forward(self, rows: Tensor, rerun: bool) -> None:
        """Prepare the next forward.

        Args:
            rows: The branches that it runs, one token each. In a rerun a branch may occur several times.
            rerun: It runs the last token once more: in this forward its keys replace the last ones. They are not
                kept, unless `replace_last` takes them over.

        """
        self._rows, self._rerun = rows, rerun

    def get_seq_length(self) -> int:
        """Tokens of prompt and answer before the next forward's."""
        return self._prompt.get_seq_length() + self._length - self._rerun

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys of prompt and answer, and the position of the first of them."""
        first = self._prompt.first
        return self.get_seq_length() - first + query_length, first  # the shared prompt's keys need masks, too

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the answers' buffers."""
        super().lazy_initialization(key_states, value_states)
        # Room for every branch, whichever of them the first forward runs.
        self._own = [
            empty_buffer(states[:1].expand(self._branches, -1, -1, -1), self._capacity)
            for states in (key_states, value_states)
        ]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the answers that run, the new token's last."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new, rows = (key_states, value_states), self._rows.to(key_states.device, non_blocking=True)
        if self._rerun:
            # The clean pass has written this token already, so the answer ends one token earlier here.
            self._rerun_states = new
            before = (own[rows, :, : self._length - 1] for own in self._own)
            keys, values = (torch.cat(pair, dim=2) for pair in zip(before, new, strict=True))
            return keys, values
        for own, states in zip(self._own, new, strict=True):
            own[:, :, self._length][rows] = states[:, :, 0]
        # All answers grow together: rows that did not run are copied from those that did, or have ended.
        self._length += 1
        keys, values = (own[rows, :, : self._length] for own in self._own)
        return keys, values

    def copy_answers(self, target: Tensor, source: Tensor) -> None:
        """Copy the keys of some answers so far to other branches."""
        for own in self._own:
            to, of = (rows.to(own.device, non_blocking=True) for rows in (target, source))
            own[to, :, : self._length] = own[of, :, : self._length]

    def replace_last(self, rows: Tensor, rerun_rows: Tensor) -> None:
        """Replace the last keys of `rows` by those of a rerun, taken from its rows `rerun_rows`."""
        assert self._rerun_states is not None
        for own, states in zip(self._own, self._rerun_states, strict=True):
            to, of = (numbers.to(own.device, non_blocking=True) for numbers in (rows, rerun_rows))
            own[:, :, self._length - 1][to] = states[of, :, 0]

    def take_over(self, former: "BranchedLayer", rows: Tensor, shifts: Tensor, length: int) -> None:
        """Begin with the keys of another layer's answers, each moved by some columns; around them there is padding.

        Args:
            former: The other layer.
            rows: The branch of it that each branch continues.
            shifts: Columns by which the keys of each branch are moved.
            length: Columns before the next forward's.

        """
        self.lazy_initialization(former._own[0][:1, :, :1], former._own[1][:1, :, :1])
        rows, shifts = (numbers.to(former._own[0].device, non_blocking=True) for numbers in (rows, shifts))
        columns = torch.arange(self._capacity, device=shifts.device) - shifts[:, None]
        columns = columns.clamp(0, former._capacity - 1)
        for own, states in zip(self._own, former._own, strict=True):
            own.copy_(states[rows[:, None], :, columns].transpose(1, 2))
        self._length = length

    def prompt_keys(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompts."""
        assert self._prompt.keys is not None
        assert self._prompt.values is not None
        return self._prompt.keys, self._prompt.values


def branched_cache(prompts: DynamicCache, branches: int, capacity: int) -> tuple[DynamicCache, list[BranchedLayer]]:
    """A cache for answers that branch from cached prompts; and its layers.

    Args:
        prompts: The prompts' cache.
        branches: Number of answers in all.
        capacity: Most tokens of an answer.

    """
    layers = []
    for layer in prompts.layers:
        assert isinstance(layer, PreallocatedLayer)
        layers.append(BranchedLayer(layer, branches, capacity))
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache, layers
