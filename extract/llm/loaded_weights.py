"""Check of loaded weights: those that the config asks for, all of them, and every value finite."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPORT = "LOAD REPORT"
"""Marks the table of keys that transformers logs; the errors below say the same in one line."""


@contextmanager
def without_load_report() -> Iterator[None]:
    """Keep transformers' table of missing and unexpected keys from the log."""
    logger = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return REPORT not in record.getMessage()

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def check_weights(where: str, model: "PreTrainedModel", loading: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the config: transformers fills gaps with random values.

    Tied weights, and keys that the model class declares to be without effect, are no gaps.

    Args:
        where: The model, for the message.
        model: As loaded.
        loading: Keys by what is wrong with them, from `from_pretrained(..., output_loading_info=True)`.

    Raises:
        UserError: a weight is missing, unexpected, of another shape, or not finite.

    """
    mismatched = [
        f"{key} {list(stored)} instead of {list(wanted)}" for key, stored, wanted in loading["mismatched_keys"]
    ]
    for wrong, keys in (
        ("weights are missing", loading["missing_keys"]),
        ("weights are of another shape", mismatched),
        ("weights have no place in the model", loading["unexpected_keys"]),
    ):
        if keys:
            raise UserError(
                f"{where}: its config.json and its weights disagree: {len(keys)} {wrong} ({_some(keys)}); "
                "take the config.json that belongs to the weights"
            )
    if broken := [name for name, value in _tensors(model) if not torch.isfinite(value).all()]:
        raise UserError(
            f"{where}: NaN or infinite values in {len(broken)} of its weights ({_some(broken)}) in {model.dtype}; "
            "download them again, or choose a wider llm.dtype"
        )


def _tensors(model: "PreTrainedModel") -> Iterator[tuple[str, torch.Tensor]]:
    """Weights and buffers of floating point that are in memory; offloaded ones are not."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and value.itemsize > 1 and not value.is_meta:
            yield name, value


def _some(keys: Collection[str]) -> str:
    first = sorted(keys)[:2]
    return ", ".join(first) + (", …" if len(keys) > len(first) else "")
