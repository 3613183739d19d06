"""Grounding: whether a token comes from the documents, from the rest of the prompt, or from the answer so far."""

import torch
from jaxtyping import Float
from torch import Tensor

from probe.attribution.record import AttributionRecord


def context_share(record: AttributionRecord) -> Float[Tensor, "token"]:
    r"""Share of the documents in what the copying heads write to each token's logit.

    For the heads whose most attended token is the generated one, c[source] is the sum of their logit contributions
    φ[layer, head, source]. The share is Σ max(c, 0) over the documents' sources / Σ max(c, 0) over all sources, the
    answer so far and the rest of the prompt included; 0 where no head copies.

    >>> record = AttributionRecord(
    ...     tokens=torch.tensor([5]),
    ...     texts=("Oslo",),
    ...     log_probs=torch.zeros(1),
    ...     attention=torch.zeros(1, 1, 2, 3),
    ...     contribution=torch.tensor([[[[3.0, 1.0, 0.0], [0.0, 9.0, 0.0]]]]),  # one document, two heads
    ...     copies=torch.tensor([[[True, False]]]),
    ...     hidden=torch.zeros(1, 4),
    ...     entropies=torch.zeros(1),
    ... )
    >>> context_share(record)
    tensor([0.7500])

    """
    heads = record.copies[..., None].to(record.contribution.dtype)
    return positive_share((record.contribution * heads).sum(dim=(1, 2)))


def positive_share(scores: Float[Tensor, "token source"]) -> Float[Tensor, "token"]:
    """Share of all sources but the last two in the positive scores; 0 where none is positive.

    >>> positive_share(torch.tensor([[3.0, -1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [0.75, 0.0]

    """
    positive = scores.nan_to_num().clamp(min=0)
    total = positive.sum(dim=1)
    return positive[:, :-2].sum(dim=1) / torch.where(total > 0, total, 1)
