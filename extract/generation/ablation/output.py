"""What ablation decoding returns: tokens, and the heads of every step before and after ablation."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class AblatedGeneration:
    """One sample under one condition, step by step.

    Attributes:
        tokens: Generated tokens; the last may be an end token.
        before: Dynamic heads of the clean pass.
        ablated: Heads ablated in the second pass.
        after: Dynamic heads of the second pass, by its own token.
        continuation: Tokens after a forced opening, without an end token; None where none was forced.

    """

    tokens: Int[Tensor, "step"]
    before: Bool[Tensor, "step head"]
    ablated: Bool[Tensor, "step head"]
    after: Bool[Tensor, "step head"]
    continuation: list[int] | None = None

    def compensated(self) -> Bool[Tensor, "step head"]:
        """Compensated heads E(s, t): dynamic after ablation, and not before.

        >>> import torch
        >>> before, after = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
        >>> AblatedGeneration(torch.tensor([7]), before, ablated=before, after=after).compensated()
        tensor([[False,  True, False]])

        """
        return self.after & ~self.before


@dataclass(frozen=True)
class AblatedGenerations:
    """Generations of every sample under every condition, on the host; entries beyond `lengths` are meaningless.

    Attributes:
        lengths: Steps; the one that generates an end token counts.
        tokens, before, ablated, after: See `AblatedGeneration`.
        continuations: Of each sample, by condition.

    """

    lengths: Int[Tensor, "sample condition"]
    tokens: Int[Tensor, "sample condition step"]
    before: Bool[Tensor, "sample condition step head"]
    ablated: Bool[Tensor, "sample condition step head"]
    after: Bool[Tensor, "sample condition step head"]
    continuations: list[list[list[int] | None]]

    def of(self, sample: int, condition: int) -> AblatedGeneration:
        """The generation of a sample under a condition, both by number."""
        steps = int(self.lengths[sample, condition])
        columns = (self.tokens, self.before, self.ablated, self.after)
        values: list[Any] = [column[sample, condition, :steps] for column in columns]
        return AblatedGeneration(*[*values, self.continuations[sample][condition]])
