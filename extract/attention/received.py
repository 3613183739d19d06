"""Attention that the tokens of a draft are paid within it: what RIND asks of the model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ROWS = 16
"""Drafts that run together: each keeps the maps of every layer."""


@torch.inference_mode()
def attention_received(
    model: "PreTrainedModel", drafts: Sequence[Sequence[int]], own: bool
) -> list[Float[Tensor, "token"]]:
    """Attention that the tokens of each draft are paid within it (see `received_attention`), on the host.

    From a forward over the draft's tokens alone, its last layer, as DRAGIN's code has it.
    """
    found = dict[tuple[int, ...], Tensor]()
    distinct = sorted({tuple(draft) for draft in drafts if draft}, key=len)
    former = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        for first in range(0, len(distinct), ROWS):
            some = distinct[first : first + ROWS]
            for draft, paid in zip(some, _paid(model, some, own), strict=True):
                found[draft] = paid[: len(draft)]
    finally:
        model.set_attn_implementation(former)
    return [found.get(tuple(draft), torch.zeros(0)) for draft in drafts]


def _paid(model: "PreTrainedModel", drafts: list[tuple[int, ...]], own: bool) -> Float[Tensor, "draft token"]:
    lengths = torch.tensor([len(draft) for draft in drafts])
    ids = torch.zeros(len(drafts), int(lengths.max()), dtype=torch.long)
    for row, draft in enumerate(drafts):
        ids[row, : len(draft)] = torch.tensor(draft)
    # Padding stands behind the drafts, where no token of theirs sees it.
    maps = model.base_model(ids.to(model.device), use_cache=False, output_attentions=True).attentions[-1]
    return received_attention(maps.float(), lengths.to(maps.device), own).cpu()


def received_attention(
    maps: Float[Tensor, "draft head query key"], lengths: Int[Tensor, "draft"], own: bool
) -> Float[Tensor, "draft key"]:
    """The largest attention that any later token pays to each token, then the mean over heads.

    Args:
        maps: Causal attention of right-padded drafts.
        lengths: Their tokens.
        own: Whether a token's attention on itself counts (DRAGIN's code) or not (its paper).

    """
    size = maps.shape[-1]
    asks = torch.arange(size, device=maps.device)
    counted = torch.ones(size, size, dtype=torch.bool, device=maps.device).tril(0 if own else -1)
    allowed = counted & (asks[None, :, None] < lengths[:, None, None])
    return maps.masked_fill(~allowed[:, None], 0).amax(dim=2).mean(dim=1)
