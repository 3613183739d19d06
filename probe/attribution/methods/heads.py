"""Attribution by the attention and the contributions of heads at each token; no further forward is needed."""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from probe.attribution.methods.base import RecordMethod
from probe.attribution.record import AttributionRecord


def mean_over_heads(
    attention: Float[Tensor, "token layer head source"], heads: Bool[Tensor, "token layer head"]
) -> Float[Tensor, "token source"]:
    """Mean attention of chosen heads on each source: `Σ a[t, l, h, s] / n[t]` over the `n` heads of token `t`.

    Rows without a head are zero.

    >>> import torch
    >>> attention = torch.tensor([[[[0.2, 0.4], [0.6, 0.0]]]])  # one token, one layer, two heads, two sources
    >>> mean_over_heads(attention, torch.tensor([[[True, True]]]))
    tensor([[0.4000, 0.2000]])
    >>> mean_over_heads(attention, torch.tensor([[[False, False]]]))
    tensor([[0., 0.]])

    """
    weights = heads.flatten(1).float()
    return (weights[:, None] @ attention.flatten(1, 2))[:, 0] / weights.sum(dim=1, keepdim=True).clamp(min=1)


class MeanAttention(RecordMethod):
    """Mean attention of all heads on each source."""

    default_name = "mean attention"

    def score_record(self, record: AttributionRecord) -> Tensor:
        """Mean attention."""
        return record.attention[..., :-2].flatten(1, 2).mean(dim=1)


class CopyingHeads(RecordMethod):
    """Mean attention of the heads that copy at the token: Eq. 1 over the whole context, with no needle.

    Args:
        fallback: Scores of a token at which no head copies: `zero`, or the `mean` attention of all heads.
        name: Its name in tables.

    """

    default_name = "copying heads"

    def __init__(self, fallback: Literal["zero", "mean"] = "zero", name: str | None = None) -> None:
        super().__init__(name, fallback=fallback)
        self.fallback = fallback

    def score_record(self, record: AttributionRecord) -> Tensor:
        """Mean attention of the copying heads."""
        attention, copies = record.attention[..., :-2], record.copies
        if self.fallback == "mean":
            copies = copies | ~copies.any(dim=2, keepdim=True).any(dim=1, keepdim=True)
        return mean_over_heads(attention, copies)


class Contribution(RecordMethod):
    """Logit contribution of each source, in logits: the sum over heads.

    Args:
        heads: `all` heads, or only those that are `copying` at the token.
        name: Its name in tables.

    """

    default_name = "contribution"

    def __init__(self, heads: Literal["all", "copying"] = "all", name: str | None = None) -> None:
        super().__init__(name or (self.default_name if heads == "all" else "contribution, copying heads"), heads=heads)
        self.heads = heads

    def score_record(self, record: AttributionRecord) -> Tensor:
        """Sum of contributions."""
        found = record.contribution[..., :-2]
        if self.heads == "copying":
            found = found * record.copies[..., None]
        return found.sum(dim=(1, 2))
