"""Retrieval scores of attention heads: Eq. 1, Eq. 2, logit contribution; which make a head dynamic: pure functions."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from extract.errors import UserError
from extract.utils import NonNegativeInt, check_fields

Target = Literal["copy_paste", "reasoning", "contribution"]
"""A retrieval score: `copy_paste` (Eq. 1, 0 or 1), `reasoning` (Eq. 2, from 0 to 1), or `contribution` (in logits)."""
REASONING_THRESHOLD = 0.5
"""From this reasoning score on a head is dynamic: most of its effective attention. The paper leaves the value open."""
Scores = TypeVar("Scores", Tensor, NDArray[Any])


@dataclass(frozen=True)
class ExcludedKeys:
    """Keys that Eq. 2 leaves out of both sums: the attention sink and the local window. Both numbers are assumptions.

    Attributes:
        sink: First tokens of the sequence that are left out (StreamingLLM's sink has 4).
        local: Last tokens that are left out, the query's own included.

    >>> ExcludedKeys()
    ExcludedKeys(sink=4, local=64)

    """

    sink: NonNegativeInt = 4
    local: NonNegativeInt = 64

    def __post_init__(self) -> None:
        check_fields(self)

    def refuse_other(self, other: "ExcludedKeys | None", owner: str, here: str) -> None:
        """Refuse reasoning scores that leave out other keys: they are other scores.

        Args:
            other: The keys that `owner` leaves out; None where it does not say.
            owner: Whose scores they are, for the message.
            here: Who leaves out these keys.

        Raises:
            UserError: naming both.

        """
        if other not in (self, None):
            raise UserError(
                f"Eq. 2 of {owner} leaves out sink {other.sink} and local {other.local}, but that of {here} "
                f"sink {self.sink} and local {self.local}: their reasoning scores differ"
            )


def copy_paste_score(
    argmax: Int[Tensor, "batch *heads"],
    tokens: Int[Tensor, "batch key"],
    evidence: Bool[Tensor, "batch key"],
    generated: Int[Tensor, "batch"],
) -> Bool[Tensor, "batch *heads"]:
    """Copy-paste score (Eq. 1): `1[i* ∈ needle and token[i*] = y_t]` with `i* = argmax_i a[h, t, i]` over all keys.

    Unlike Wu et al.'s retrieval score it is not divided by the length of the needle.

    Args:
        argmax: Most attended key `i*` of each head; no key is left out, sinks included.
        tokens: Token id of each key.
        evidence: Whether a key is a needle token.
        generated: The token `y_t` generated at this step.

    >>> argmax = torch.tensor([[1, 2, 0]])  # of three heads
    >>> tokens, needle = torch.tensor([[7, 8, 9]]), torch.tensor([[False, True, True]])
    >>> copy_paste_score(argmax, tokens, needle, generated=torch.tensor([8]))
    tensor([[ True, False, False]])

    """
    flat = argmax.flatten(1)
    hit = evidence.gather(1, flat) & (tokens.gather(1, flat) == generated[:, None])
    return hit.view_as(argmax)


def kept_keys(real: Bool[Tensor, "batch key"], excluded: ExcludedKeys) -> Bool[Tensor, "batch key"]:
    """Keys over which Eq. 2 sums attention: neither padding, nor the sink, nor the local window.

    Args:
        real: Whether a key is a token rather than padding, which may also lie between tokens; the last key is the
            query's own.
        excluded: Size of sink and local window, in tokens.

    >>> real = torch.tensor([[False, True, True, True, True]])
    >>> kept_keys(real, ExcludedKeys(sink=1, local=2))
    tensor([[False, False,  True, False, False]])

    """
    order = real.cumsum(dim=1)  # 1 at a sample's first token, whatever the padding before it
    return real & (order > excluded.sink) & (order <= order[:, -1:] - excluded.local)


def reasoning_score(
    evidence_mass: Float[Tensor, "batch *heads"],
    kept_mass: Float[Tensor, "batch *heads"],
    evidence_kept: Bool[Tensor, "batch"],
) -> Float[Tensor, "batch *heads"]:
    """Reasoning score (Eq. 2): `Σ a[h, t, i] over kept evidence / Σ a[h, t, i] over kept keys`, in [0, 1].

    The paper's numerator takes all evidence, so that its score can exceed 1; here sink and local window leave both
    sums (see `kept_keys`). A head has no score (NaN, not 0) if it has no attention on kept keys, or if no evidence is
    kept.

    Args:
        evidence_mass: Attention of each head on kept evidence.
        kept_mass: Attention of each head on kept keys.
        evidence_kept: Whether a sample has any kept evidence.

    >>> evidence, kept = torch.tensor([[0.2, 0.0]]), torch.tensor([[0.5, 0.0]])
    >>> reasoning_score(evidence, kept, evidence_kept=torch.tensor([True]))
    tensor([[0.4000,    nan]])

    """
    scored = evidence_kept.view(-1, *[1] * (kept_mass.ndim - 1)) & (kept_mass > 0)
    # The two sums are rounded separately, so their ratio can exceed 1 by an ulp.
    return torch.where(scored, evidence_mass / kept_mass, torch.nan).clamp(max=1.0)


def logit_contribution(
    attention: Float[Tensor, "batch head key"],
    value_logits: Float[Tensor, "batch head key"],
    sources: Float[Tensor, "batch key source"],
) -> Float[Tensor, "batch head source"]:
    """Logit contribution of each source through each head: `φ[h, s] = Σ a[h, i] · (v[i] · g[h])` over its keys `i`.

    `g[h] = W_O[h]ᵀ d` is what one unit of the head's output adds to the logit of the generated token, where `d` is the
    token's unembedding, pulled back through the norms after the head with their statistics frozen. Sums over all keys
    and heads, plus what attention biases, feed-forward layers and embedding write, are the logit.

    Args:
        attention: Attention weights `a`.
        value_logits: `v[i] · g[h]`: logit that key `i` adds if the head attends to it alone.
        sources: Whether a key belongs to a source, 0 or 1.

    >>> attention, value_logits = torch.tensor([[[0.5, 0.25, 0.25]]]), torch.tensor([[[4.0, 2.0, -2.0]]])
    >>> logit_contribution(attention, value_logits, torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]))
    tensor([[[2., 0.]]])

    """
    return torch.bmm(attention * value_logits, sources)


def is_dynamic(scores: Scores, target: Target, threshold: float = REASONING_THRESHOLD) -> Scores:
    """Whether each head is dynamic at its step: `score = 1` for Eq. 1, `score ≥ threshold` for all others.

    A threshold of logit contributions is in logits: evidence through a head at 0.5 multiplies the odds of the generated
    token by `e^0.5 = 1.6`. It depends on that head alone, so that ablating one head makes no other dynamic by itself.

    Args:
        scores: Retrieval scores of any shape, as a tensor or an array; a missing score (NaN) makes no head dynamic.
        target: Which score they are.
        threshold: Of reasoning scores and contributions; copy-paste scores are 0 or 1 and need none.

    >>> is_dynamic(torch.tensor([0.2, 0.7, float("nan")]), "reasoning")
    tensor([False,  True, False])
    >>> is_dynamic(torch.tensor([0.0, 1.0]), "copy_paste", threshold=2.0)
    tensor([False,  True])

    """
    return scores >= (0.5 if target == "copy_paste" else threshold)
