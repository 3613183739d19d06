"""Attention that the tokens of a draft receive from its later tokens: RIND's part of the model's attention."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from extract.utils import frozen_inference

if TYPE_CHECKING:
    from transformers import PreTrainedModel


DRAFTS = 16
"""Drafts that run in one batch: eager attention keeps the maps of every layer."""


@frozen_inference()
def attention_received(
    model: "PreTrainedModel", drafts: Sequence[Sequence[int]], include_self: bool
) -> list[Float[Tensor, "token"]]:
    """Attention that each token of a draft receives in the model's last layer (see `received_attention`).

    As in DRAGIN's code (Su et al. 2024), the forward runs over the draft's tokens alone, without prompt.

    Args:
        model: The model; its attention implementation is `eager` meanwhile.
        drafts: Token ids of each draft; equal ones run once.
        include_self: See `received_attention`.

    Returns:
        For each draft one value a token, on the host; none for an empty draft.

    """
    found = dict[tuple[int, ...], Tensor]()
    distinct = sorted({tuple(draft) for draft in drafts if draft}, key=len)
    former = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        for first in range(0, len(distinct), DRAFTS):
            batch = distinct[first : first + DRAFTS]
            for draft, received in zip(batch, _received(model, batch, include_self), strict=True):
                found[draft] = received[: len(draft)]
    finally:
        model.set_attn_implementation(former)
    return [found.get(tuple(draft), torch.zeros(0)) for draft in drafts]


def _received(
    model: "PreTrainedModel", drafts: list[tuple[int, ...]], include_self: bool
) -> Float[Tensor, "draft token"]:
    lengths = torch.tensor([len(draft) for draft in drafts])
    ids = torch.zeros(len(drafts), int(lengths.max()), dtype=torch.long)
    for row, draft in enumerate(drafts):
        ids[row, : len(draft)] = torch.tensor(draft)
    # Right padding needs no mask: a causal query sees no later token.
    maps = model.base_model(ids.to(model.device), use_cache=False, output_attentions=True).attentions[-1]
    return received_attention(maps.float(), lengths.to(maps.device), include_self).cpu()


def received_attention(
    maps: Float[Tensor, "draft head query key"], lengths: Int[Tensor, "draft"], include_self: bool
) -> Float[Tensor, "draft key"]:
    """Attention that each token receives: `mean over heads h of max over later queries q of a[h, q, key]`.

    Args:
        maps: Causal attention of right-padded drafts.
        lengths: Tokens of each draft; queries beyond it are padding and do not count.
        include_self: Whether a token's attention on itself counts (DRAGIN's code) or only that of later tokens (its
            paper).

    >>> maps = torch.tensor([[[[1.0, 0.0], [0.3, 0.7]]]])  # one draft of two tokens, one head
    >>> received_attention(maps, torch.tensor([2]), include_self=True)
    tensor([[1.0000, 0.7000]])
    >>> received_attention(maps, torch.tensor([2]), include_self=False)
    tensor([[0.3000, 0.0000]])

    """
    size = maps.shape[-1]
    query = torch.arange(size, device=maps.device)
    later = torch.ones(size, size, dtype=torch.bool, device=maps.device).tril(0 if include_self else -1)
    counted = later & (query[None, :, None] < lengths[:, None, None])
    return maps.masked_fill(~counted[:, None], 0).amax(dim=2).mean(dim=1)
