"""Retrieval scores of attention heads, Eq. 1 and Eq. 2, as pure functions."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def copy_paste_score(
    argmax: Int[Tensor, "batch *heads"],
    tokens: Int[Tensor, "batch key"],
    evidence: Bool[Tensor, "batch key"],
    generated: Int[Tensor, "batch"],
) -> Bool[Tensor, "batch *heads"]:
    """Eq. 1: whether a head's most attended key lies in the evidence and holds the token that is generated.

    Args:
        argmax: Most attended key of each head, over all keys.
        tokens: Token of each key.
        evidence: Whether a key is a needle token.
        generated: The token generated at this step.

    """
    flat = argmax.flatten(1)
    hit = evidence.gather(1, flat) & (tokens.gather(1, flat) == generated[:, None])
    return hit.view_as(argmax)


def kept_keys(real: Bool[Tensor, "batch key"], sink: int, local: int) -> Bool[Tensor, "batch key"]:
    """Keys that Eq. 2 counts: no padding, none of the first `sink` tokens, none of the last `local` ones.

    The last key is the query's own and belongs to the local window.
    """
    order = real.cumsum(dim=1)  # 1 at a sample's first token, whatever the padding before it
    keep = real & (order > sink)
    if local:
        keep[:, -local:] = False
    return keep


def reasoning_score(
    evidence_mass: Float[Tensor, "batch *heads"],
    kept_mass: Float[Tensor, "batch *heads"],
    evidence_kept: Bool[Tensor, "batch"],
) -> Float[Tensor, "batch *heads"]:
    """Eq. 2: share of a head's attention on kept keys that goes to kept evidence, in [0, 1].

    A head without any attention on kept keys gets NaN: it has no score, which is not a score of 0. So do all heads
    where the whole evidence lies in the sink or the local window (`evidence_kept` is false).
    """
    scored = evidence_kept.view(-1, *[1] * (kept_mass.ndim - 1)) & (kept_mass > 0)
    # Each mass is a sum of its own, so rounding can lift their ratio above 1 by an ulp.
    return torch.where(scored, evidence_mass / kept_mass, torch.nan).clamp(max=1.0)
