"""What ablation decoding gives: tokens, and the heads of every step before and after ablation."""

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Generation:
    """One sample under one condition, step by step.

    Attributes:
        tokens: Generated tokens; the last may be an end token.
        before: Dynamic heads of the clean pass.
        ablated: Heads ablated in the second pass.
        after: Heads that score in the second pass, by its own token.

    """

    tokens: Int[Tensor, "step"]
    before: Bool[Tensor, "step head"]
    ablated: Bool[Tensor, "step head"]
    after: Bool[Tensor, "step head"]

    def compensated(self) -> Bool[Tensor, "step head"]:
        """Heads that score after ablation and did not before, E(s, t)."""
        return self.after & ~self.before


@dataclass(frozen=True)
class Ablated:
    """Generations of every sample under every condition; what lies behind `lengths` means nothing.

    Attributes:
        lengths: Steps; the one that generates an end token is one.
        tokens, before, ablated, after: As in `Generation`.

    """

    lengths: Int[Tensor, "sample condition"]
    tokens: Int[Tensor, "sample condition step"]
    before: Bool[Tensor, "sample condition step head"]
    ablated: Bool[Tensor, "sample condition step head"]
    after: Bool[Tensor, "sample condition step head"]

    def of(self, sample: int, condition: int) -> Generation:
        """One of them, by its places."""
        steps = int(self.lengths[sample, condition])
        columns = (self.tokens, self.before, self.ablated, self.after)
        return Generation(*(column[sample, condition, :steps] for column in columns))
