"""LongRoPE turns keys by one of two sets of angles: a sample keeps to one of them from its first token to its last.

transformers chooses the set anew at every forward, by the longest position in the batch. Prefill in chunks, a batch of
short and long prompts or an answer that crosses the border would then mix keys of both sets in one cache.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from extract.errors import UserError
from extract.tasks import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Result = TypeVar("Result")


def by_regime(model: "PreTrainedModel", samples: Sequence[Sample], run: Callable[[list[Sample]], Result]) -> Result:
    """Run a batch, those samples apart that need the other set of angles; results come together in its order.

    `run` gives a dataclass whose fields are lists by sample, or tensors whose first dimension is the sample.
    """
    groups = regimes(model, samples)
    parts = []
    for group in groups:
        with regime_of(model, samples[group[0]]):
            parts.append(run([samples[place] for place in group]))
    return parts[0] if len(parts) == 1 else _joined(parts, [place for group in groups for place in group])


def _joined(parts: list[Any], places: list[int]) -> Any:
    """One dataclass of all parts; tensors are filled up to the longest with zeros."""
    order = sorted(range(len(places)), key=places.__getitem__)

    def join(columns: list[Any]) -> Any:
        if isinstance(columns[0], list):
            every = [value for column in columns for value in column]
            return [every[place] for place in order]
        sizes = [max(column.shape[axis] for column in columns) for axis in range(1, columns[0].ndim)]
        return torch.cat([_filled(column, sizes) for column in columns])[order]

    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: join([getattr(part, name) for part in parts]) for name in names})


def _filled(tensor: Tensor, sizes: list[int]) -> Tensor:
    full = tensor.new_zeros(len(tensor), *sizes)
    full[(slice(None), *(slice(size) for size in tensor.shape[1:]))] = tensor
    return full


def _rotaries(model: "PreTrainedModel") -> list[Any]:
    return [module for module in model.modules() if getattr(module, "rope_type", None) == "longrope"]


def regimes(model: "PreTrainedModel", samples: Sequence[Sample]) -> list[list[int]]:
    """Places of the samples that keep to the short angles, and of those that need the long ones; none is empty.

    A sample is long if its prompt and the longest answer it may get reach beyond the model's original length.
    """
    places = list(range(len(samples)))
    rotaries = _rotaries(model)
    if not rotaries:
        return [places]
    border = rotaries[0].config.rope_parameters["original_max_position_embeddings"]
    long = [len(sample.ids) + sample.budget > border for sample in samples]
    groups = [[place for place in places if long[place] is kind] for kind in (False, True)]
    return [group for group in groups if group]


def check_short(model: "PreTrainedModel", length: int, purpose: str) -> None:
    """Whether sequences of that many positions keep to the short angles without being told to.

    Raises:
        UserError: they reach beyond the model's original length.

    """
    for rotary in _rotaries(model):
        border = rotary.config.rope_parameters["original_max_position_embeddings"]
        if length > border:
            raise UserError(
                f"{type(model).__name__}: {purpose} of {length} tokens reaches beyond its original length, {border}, "
                "where its LongRoPE turns keys anew; shorten the prompts"
            )


@contextmanager
def regime_of(model: "PreTrainedModel", sample: Sample) -> Iterator[None]:
    """Every forward within turns keys by the set of angles that `sample` needs."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    former = []
    for rotary in _rotaries(model):
        border = rotary.config.rope_parameters["original_max_position_embeddings"]
        short = rotary.original_inv_freq
        former.append((rotary, short, getattr(rotary, "long_inv_freq", None)))
        if len(sample.ids) + sample.budget > border:
            rotary.original_inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](
                rotary.config, short.device, seq_len=border + 1
            )
            rotary.long_inv_freq = None
        else:
            rotary.long_inv_freq = short
    try:
        yield
    finally:
        for rotary, short, long in former:
            rotary.original_inv_freq, rotary.long_inv_freq = short, long
