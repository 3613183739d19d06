"""Losses over the scores of all heads."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def asymmetric_loss(
    logits: Float[Tensor, "row head"],
    labels: Float[Tensor, "row head"],
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    eps: float = 1e-8,
) -> Float[Tensor, ""]:
    """Asymmetric loss (Ridnik et al. 2021): focal with a weaker and shifted pull of the many negatives.

    With p = sigmoid(logit) and p_neg = min(1 - p + clip, 1), the loss of a label y is
    `-[y ln p (1-p)^gamma_pos + (1-y) ln p_neg (1-p_neg)^gamma_neg]`; summed over heads, averaged over rows. The focal
    weights carry no gradient. With both gammas and clip 0 it is binary cross-entropy.

    Computed in float32 from logits: ln p and ln(1-p) by logsigmoid, so that neither saturates.
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
        return base.sum(dim=1).mean()
    with torch.no_grad():
        p = torch.sigmoid(x)
        p_neg = (1 - p + clip).clamp(max=1.0)
        weight = y * (1 - p) ** gamma_pos + (1 - y) * (1 - p_neg) ** gamma_neg
    return (base * weight).sum(dim=1).mean()


def masked_mse(predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"]) -> Float[Tensor, ""]:
    """Mean squared error over the heads that have a score (Eq. 2 gives NaN to those without)."""
    known = scores.isfinite()
    error = torch.where(known, predicted.float() - scores.nan_to_num(), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)
