"""Statistics of one token of an answer: attention on the evidence, and what it and other segments write."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Heads = Float[Tensor, "head source"]
Sources = Float[Tensor, "source"]
Matched = Bool[Tensor, "other"]
LARGEST = 1e9
"""Standard score where the spread is 0."""


@dataclass(frozen=True)
class TokenStatistics:
    """What is known of the token at which an answer goes wrong.

    Attributes:
        attended: See `attended_margin`.
        written: See `written_score`.
        outvoted: See `outvoted_share`.
        prior_wins: Whether the wrong token is the model's choice without any context.
        follows: Whether it is with the answer's earlier sentences alone, and not without these: the mistake is in them.
        matched: Number of segments that the evidence is compared with.

    """

    attended: float
    written: float
    outvoted: float
    prior_wins: bool
    matched: int
    follows: bool = False


def attended_margin(attention: Heads, evidence: int, matched: Matched) -> float:
    """Largest margin by which a head attends to the evidence more than to any matched segment.

    `max_h (max_e a_h(e) - max_j a_h(j))` over heads h, spans of evidence e and matched segments j; 0 or below where no
    head attends to the evidence most. NaN without a matched segment.

    Args:
        attention: Of each head on each source; the evidence's spans come first, then all other segments.
        evidence: Number of the evidence's spans.
        matched: Which of the other segments are matched.

    >>> attention = torch.tensor([[0.1, 0.3, 0.2], [0.6, 0.1, 0.2]])
    >>> round(attended_margin(attention, evidence=1, matched=torch.tensor([True, True])), 4)
    0.4

    """
    if not bool(matched.any()):
        return float("nan")
    others = attention[:, evidence:][:, matched].max(dim=1).values
    return float((attention[:, :evidence].max(dim=1).values - others).max())


def written_score(right: Sources, evidence: int, matched: Matched) -> float:
    """Standard score of the evidence's contribution to the right token's logit among matched segments.

    `(max_e c_e - mean_j c_j) / sd_j` with the population's standard deviation; ±`LARGEST` where all matched
    segments contribute the same. NaN for fewer than two matched segments.

    Args:
        right: Logit contribution of each source to the right token, summed over heads.
        evidence: Number of the evidence's spans.
        matched: Which of the other segments are matched.

    >>> written_score(torch.tensor([5.0, 1.0, 3.0]), evidence=1, matched=torch.tensor([True, True]))
    3.0

    """
    others = right[evidence:][matched].double()
    if len(others) < 2:
        return float("nan")
    excess, spread = float(right[:evidence].double().max() - others.mean()), float(torch.std(others, correction=0))
    if spread:
        return excess / spread
    return math.copysign(LARGEST, excess) if excess else 0.0


def outvoted_share(margins: Sources, evidence: int) -> float:
    """Share of the most opposing segment in what it and the evidence write, in [0, 1]; above ½ it is the stronger one.

    `o / (o + m)` with `o = max(0, -min_j m_j)` over segments other than the evidence, `m = max(0, Σ_e m_e)`; 0 where no
    segment opposes.

    Args:
        margins: Contribution of each source to the right token's logit, less that to the wrong token's.
        evidence: Number of the evidence's spans.

    >>> outvoted_share(torch.tensor([1.0, 0.5, -3.0]), evidence=1)
    0.75

    """
    if len(margins) == evidence:
        return 0.0
    opposing = max(0.0, -float(margins[evidence:].min()))
    return opposing / (opposing + max(0.0, float(margins[:evidence].sum()))) if opposing else 0.0


def most_opposing(margins: Sources, evidence: int) -> int | None:
    """The segment, counted after the evidence, that writes most against the right token; ties by the earlier one.

    None where there is no other segment.

    >>> most_opposing(torch.tensor([1.0, 0.5, -3.0]), evidence=1)
    1

    """
    return int(margins[evidence:].argmin()) if len(margins) > evidence else None


def writing_heads(margins: Heads, evidence: int, count: int) -> list[int]:
    """The heads that write most of the evidence towards the right token and away from the wrong one, strongest first.

    Args:
        margins: By head, contribution of each source to the right token's logit, less that to the wrong token's.
        evidence: Number of the evidence's spans.
        count: Most heads.

    >>> writing_heads(torch.tensor([[0.1, 9.0], [2.0, 0.0], [-1.0, 0.0]]), evidence=1, count=2)
    [1, 0]

    """
    written = margins[:, :evidence].sum(dim=1)
    return written.argsort(descending=True, stable=True)[:count].tolist()
