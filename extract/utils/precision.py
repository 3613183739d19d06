"""Numeric precision of a run: what `trainer.precision` may change, and computations that it may not."""

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from extract.errors import UserError

if TYPE_CHECKING:
    from lightning import Trainer

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def without_autocast() -> Iterator[None]:
    """Compute in the dtypes of the tensors: automatic mixed precision is off inside.

    As a decorator it does so for a function: Lightning runs every step of a mixed-precision Trainer under autocast.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     with without_autocast():
    ...         print((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
    torch.float32

    """
    with ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def frozen_inference() -> Iterator[None]:
    """Inference with frozen weights in their own dtype: neither gradients nor autocast."""
    with torch.inference_mode(), without_autocast():
        yield


BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What torch calls the instructions of x86 and ARM that multiply matrices in bfloat16."""


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16; one that converts to float32 and back is several times slower.

    True where torch cannot say.
    """
    if query := getattr(torch.cpu, "get_capabilities", None):
        held = query()
        return any(held.get(name) for name in BFLOAT16_INSTRUCTIONS)
    queries = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    known = [bool(query()) for query in queries if query]
    return any(known) or not known or platform.machine() not in ("x86_64", "AMD64")


def check_precision(trainer: "Trainer") -> None:
    """Refuse a Trainer whose precision plugin converts weights or data, or changes the default dtype.

    Automatic mixed precision is accepted: it changes the training steps of probes, and nothing else.

    Raises:
        UserError: the precision is neither `32-true` nor `bf16-mixed` nor `16-mixed`.

    """
    from lightning.pytorch.plugins.precision import MixedPrecision, Precision

    plugin = trainer.precision_plugin
    if type(plugin) not in (Precision, MixedPrecision):
        raise UserError(
            f"trainer.precision {plugin.precision} ({type(plugin).__name__}) would convert hidden states and scores: "
            "use 32-true, or bf16-mixed or 16-mixed to train a probe; the precision of the LLM is llm.dtype"
        )
