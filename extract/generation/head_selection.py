"""What chooses the heads to ablate: the interface between ablation decoding and the conditions of an experiment."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class StepHeads:
    """The heads of one decoding step, after its clean pass; a row is a sample.

    Attributes:
        dynamic: Dynamic heads of the step, layer-major.
        order: What orders them, higher first.
        sample: Number of each row's sample (`Sample.index`), on the host.
        step: Number of the step, from 0.

    """

    dynamic: Bool[Tensor, "row head"]
    order: Float[Tensor, "row head"]
    sample: Int[Tensor, "row"]
    step: int


@runtime_checkable
class Selection(Protocol):
    """Chooses the heads to ablate at a step."""

    def ablated(self, heads: StepHeads) -> Bool[Tensor, "row head"]:
        """The heads to ablate; the same for a sample whatever batch it is in."""
