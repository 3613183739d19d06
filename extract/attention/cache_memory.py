"""Memory of cached keys: how many prompts can be decoded together."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import psutil
import torch
from torch import distributed

from extract.attention.kv_cache import PreallocatedLayer, preallocated_cache
from extract.utils import PositiveInt, frozen_inference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Slots = PositiveInt | Literal["auto"] | None
"""Prompts of a batch that are decoded together: a number, as many as memory holds, or all."""

SHARE = 0.5
"""Of the free memory that keys may take; activations, scores and copies of keys have the rest."""


def slots_of(setting: Slots, model: "PreTrainedModel", tokens: Sequence[int]) -> int | None:
    """Prompts of a batch that are decoded together; None: all of them.

    Args:
        setting: A number, `auto` (as many as the free memory holds, all being as long as the longest), or None.
        model: The model.
        tokens: Of each prompt, the most tokens that are cached for it.

    """
    if setting != "auto":
        return setting
    longest, sizes = max(tokens, default=1), bytes_of_token(model)
    fitting = min(int(SHARE * free_bytes(device)) // (size * longest) for device, size in sizes.items())
    return max(1, min(len(tokens), fitting))


@frozen_inference()
def bytes_of_token(model: "PreTrainedModel") -> dict[torch.device, int]:
    """Bytes of the keys and values of one token in all layers, by the device that holds them.

    A layer with a sliding window counts as any other, though it drops old keys: an upper bound.

    >>> from extract.llm import LLM
    >>> bytes_of_token(LLM().model)  # 30 layers × 3 key heads × 2 (keys and values) × 64 × 4 bytes
    {device(type='cpu'): 46080}

    """
    cache, sizes = preallocated_cache(model, 1), Counter[torch.device]()
    # Measured on a token, since the families cache different things (grouped heads, latent vectors).
    model(torch.zeros((1, 1), dtype=torch.long, device=model.device), past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        assert isinstance(layer, PreallocatedLayer)
        for states in (layer.keys, layer.values):
            assert states is not None
            sizes[states.device] += states.numel() * states.element_size()
    return dict(sizes)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device, what PyTorch holds unused included; of the host, this process's share.

    Of the host it is what can be had without swapping, divided by all processes, as if they were on one node.
    """
    if device.type != "cuda":
        processes = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        return int(psutil.virtual_memory().available) // processes
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
