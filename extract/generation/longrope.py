"""LongRoPE: each sample's keys are rotated by one set of factors, short or long, from its first token to its last.

transformers chooses the set anew in every forward, by the longest position in the batch. Prefill in chunks, a batch of
short and long prompts, or an answer that crosses the original length would then mix keys of both sets in one cache.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from extract.errors import UserError
from extract.tasks import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Columns = TypeVar("Columns")


@dataclass(frozen=True)
class RotaryGroup:
    """Samples of a batch that need the same set of factors.

    Attributes:
        indices: Their places in the batch, ascending.
        samples: The samples.
        long: Whether they need the long factors: prompt and longest possible answer exceed the original length.

    """

    indices: list[int]
    samples: list[Sample]
    long: bool


def rotary_groups(model: "PreTrainedModel", samples: Sequence[Sample]) -> list[RotaryGroup]:
    """A batch in groups that can run together: short samples, then long ones; one group without LongRoPE."""
    rotaries = _long_rotaries(model)
    border = _original_length(rotaries[0]) if rotaries else None
    # The longest possible answer decides, for how long it will be is not known before.
    long = [border is not None and len(sample.ids) + sample.budget > border for sample in samples]
    groups = []
    for kind in (False, True):
        if indices := [index for index, needs in enumerate(long) if needs is kind]:
            groups.append(RotaryGroup(indices, [samples[index] for index in indices], kind))
    return groups


@contextmanager
def rotary_factors(model: "PreTrainedModel", group: RotaryGroup) -> Iterator[None]:
    """Every forward within rotates keys by the group's factors, however long its sequences are."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    former = []
    for rotary in _long_rotaries(model):
        short = rotary.original_inv_freq
        former.append((rotary, short, getattr(rotary, "long_inv_freq", None)))
        # transformers takes `long_inv_freq` beyond the original length, else `original_inv_freq`: here both are
        # the same set. A missing `long_inv_freq` is computed, and is the long one.
        if group.long:
            beyond = _original_length(rotary) + 1
            rotary.original_inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](rotary.config, short.device, seq_len=beyond)
            rotary.long_inv_freq = None
        else:
            rotary.long_inv_freq = short
    try:
        yield
    finally:
        for rotary, short, long in former:
            rotary.original_inv_freq, rotary.long_inv_freq = short, long


def run_by_group(model: "PreTrainedModel", samples: Sequence[Sample], run: Callable[[RotaryGroup], Columns]) -> Columns:
    """Run each group of a batch with its own rotary factors; the results in the batch's order (see `join_groups`).

    Args:
        model: The frozen model.
        samples: The batch.
        run: Gives the results of a group.

    """
    groups, parts = rotary_groups(model, samples), list[Columns]()
    for group in groups:
        with rotary_factors(model, group):
            parts.append(run(group))
    return join_groups(parts, groups)


def join_groups(parts: Sequence[Columns], groups: Sequence[RotaryGroup]) -> Columns:
    """Results of groups as those of their batch, in its order.

    Args:
        parts: One for each group: a dataclass of lists by sample, or of tensors whose first dimension is the sample.
            Other dimensions may differ: shorter tensors are padded with zeros.
        groups: The groups.

    >>> from dataclasses import make_dataclass
    >>> Lengths = make_dataclass("Lengths", ["lengths"])
    >>> groups = [RotaryGroup([0, 2], [], False), RotaryGroup([1], [], True)]
    >>> join_groups([Lengths([5, 6]), Lengths([90])], groups)
    Lengths(lengths=[5, 90, 6])

    """
    first: Any = parts[0]
    if len(parts) == 1:
        return parts[0]
    indices = [index for group in groups for index in group.indices]
    # Inverse permutation: where each sample of the batch lies in the concatenated parts.
    order = sorted(range(len(indices)), key=indices.__getitem__)
    names = [field.name for field in fields(first)]
    joined: Columns = type(first)(**{name: _joined([getattr(part, name) for part in parts], order) for name in names})
    return joined


def _joined(columns: list[Any], order: list[int]) -> Any:
    """One field of all parts, in the given order."""
    if columns[0] is None:
        return None
    if isinstance(columns[0], list):
        values = [value for column in columns for value in column]
        return [values[index] for index in order]
    sizes = [max(column.shape[axis] for column in columns) for axis in range(1, columns[0].ndim)]
    return torch.cat([_padded(column, sizes) for column in columns])[order]


def _padded(tensor: Tensor, sizes: list[int]) -> Tensor:
    full = tensor.new_zeros(len(tensor), *sizes)
    full[(slice(None), *(slice(size) for size in tensor.shape[1:]))] = tensor
    return full


def _long_rotaries(model: "PreTrainedModel") -> list[Any]:
    """The model's rotary embeddings with LongRoPE; none for other models."""
    return [module for module in model.modules() if getattr(module, "rope_type", None) == "longrope"]


def _original_length(rotary: Any) -> int:
    """Length in tokens up to which the short factors hold."""
    return int(rotary.config.rope_parameters["original_max_position_embeddings"])


def check_short(model: "PreTrainedModel", length: int, purpose: str) -> None:
    """Check that sequences of `length` tokens need only the short factors.

    Raises:
        UserError: they exceed the model's original length.

    """
    for rotary in _long_rotaries(model):
        border = _original_length(rotary)
        if length > border:
            raise UserError(
                f"{type(model).__name__}: {purpose} of {length} tokens reaches beyond its original length, {border}, "
                "where its LongRoPE rotates keys differently; shorten the prompts"
            )
