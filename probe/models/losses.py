"""Training losses of probes."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "sum"]
"""Of a loss over the rows of a batch."""


def asymmetric_loss(
    logits: Float[Tensor, "row head"],
    labels: Float[Tensor, "row head"],
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    eps: float = 1e-8,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Asymmetric loss for multi-label classification: focal weights that are stronger for the many negatives.

    With p = σ(logit) and p₋ = min(1 - p + clip, 1), the loss of a label y is
    -[y (1 - p)^γ₊ ln p + (1 - y) (1 - p₋)^γ₋ ln p₋], summed over heads and averaged over rows, or summed over both as
    its authors do. The focal weights carry no gradient. With both exponents and the margin 0 it is binary
    cross-entropy. Source: Ridnik et al. (2021).

    Computed in float32 from logits by log-sigmoid, so that neither logarithm saturates.

    Args:
        logits: Of each row and head.
        labels: 0 or 1.
        gamma_neg: Focusing exponent γ₋ of negatives.
        gamma_pos: Focusing exponent γ₊ of positives.
        clip: Probability margin: negatives of a smaller p have no loss.
        eps: Least value of p₋ in the logarithm.
        reduction: Over rows: `mean`, or `sum`.

    >>> asymmetric_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))  # ln 2 · ½ + 0.45⁴ · -ln 0.55
    tensor(0.3711)

    """
    x, y = logits.float(), labels.float()
    log_pos = F.logsigmoid(x)
    if clip > 0:
        shifted = (torch.sigmoid(-x) + clip).clamp(max=1.0)
        log_neg = shifted.clamp(min=eps).log()
    else:
        log_neg = F.logsigmoid(-x)
    base = -(y * log_pos + (1 - y) * log_neg)
    if gamma_pos == 0 and gamma_neg == 0:
        return _reduced(base, reduction)
    with torch.no_grad():
        p = torch.sigmoid(x)
        p_neg = (1 - p + clip).clamp(max=1.0)
        weight = y * (1 - p) ** gamma_pos + (1 - y) * (1 - p_neg) ** gamma_neg
    return _reduced(base * weight, reduction)


def _reduced(losses: Float[Tensor, "row head"], reduction: Reduction) -> Float[Tensor, ""]:
    """Sum over heads, then mean or sum over rows."""
    rows = losses.sum(dim=1)
    return rows.mean() if reduction == "mean" else rows.sum()


def masked_mse(predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"]) -> Float[Tensor, ""]:
    """Mean squared error over the (row, head) pairs that have a score; Eq. 2 gives NaN to a head without one.

    >>> masked_mse(torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, torch.nan]]))
    tensor(0.2500)

    """
    known = scores.isfinite()
    error = torch.where(known, predicted.float() - scores.nan_to_num(), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)
