"""Heads that a probe had predicted for a critical token, and whether the expected ones acted there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.heads import top_k, top_k_mask
from extract.llm import LLM
from extract.utils import frozen_inference
from probe.models import ProbeClassifier, load, weights_digest

if TYPE_CHECKING:
    from probe.models import Probe

EARLIER = (1, 4)
"""Decode steps before the critical token from whose states a probe of the same step predicts, beside its own."""
EXPECTED = 10
"""Expected heads: those of highest mean score in the probe's training rows."""
PREDICTED = 20
"""Heads that a regressor predicts: those of highest score."""


@dataclass(frozen=True, eq=False)
class ReadProbe:
    """A trained probe, read at critical tokens.

    Attributes:
        probe: The probe.
        steps: Decode steps before the token from whose hidden states it predicts: its own offset, or of a probe of the
            same step 0 and `EARLIER`.
        expected: The expected heads, layer-major.

    """

    probe: "Probe"
    steps: tuple[int, ...]
    expected: list[int]

    @classmethod
    def of(cls, checkpoint: str, llm: LLM) -> "ReadProbe":
        """The probe of a checkpoint.

        Raises:
            UserError: no readable probe is there, or it was trained for another LLM.

        """
        probe = load(checkpoint, llm=llm.identity)
        offset = int(probe.training_record.get("split", {}).get("offset", 0))
        return cls(probe, (offset,) if offset else (0, *EARLIER), top_k(probe.head_means, EXPECTED).tolist())

    def describe(self) -> dict[str, Any]:
        """What determines the predictions."""
        return {"weights": weights_digest(self.probe), "steps": list(self.steps), "expected": self.expected}

    @frozen_inference()
    def predicted(self, states: Float[Tensor, "state hidden"]) -> Bool[Tensor, "state head"]:
        """The heads that it predicts from hidden states: of a classifier by its threshold, else the top ones."""
        hidden = states.to(self.probe.head_means)
        if isinstance(self.probe, ProbeClassifier):
            return self.probe.predict_heads(hidden)
        return top_k_mask(self.probe.predict_scores(hidden), PREDICTED)


def acting_heads(attention: Float[Tensor, "head source"], evidence: int) -> Bool[Tensor, "head"]:
    """Heads that attend to a span of the evidence more than to any other segment.

    Args:
        attention: Of each head on each source; the evidence's spans come first.
        evidence: Number of the evidence's spans.

    >>> acting_heads(torch.tensor([[0.2, 0.1, 0.1], [0.2, 0.1, 0.3]]), evidence=1)
    tensor([ True, False])

    """
    if attention.shape[1] == evidence:
        return torch.ones(len(attention), dtype=torch.bool)
    return attention[:, :evidence].amax(dim=1) > attention[:, evidence:].amax(dim=1)


def predictions(
    probes: Sequence[ReadProbe], states: Float[Tensor, "state hidden"], acting: Bool[Tensor, "head"]
) -> list[dict[str, int]]:
    """Of each probe and step: how many of the expected heads it predicted, how many acted, and both.

    Args:
        probes: The probes.
        states: Hidden states, of the critical token's query and of earlier ones, as far as there are any.
        acting: The heads that acted there.

    """
    found = []
    for number, one in enumerate(probes):
        expected = torch.zeros_like(acting)
        expected[one.expected] = True
        for steps in one.steps:
            if steps >= len(states):  # before the answer began
                continue
            heads = one.predicted(states[steps : steps + 1])[0].to(acting.device)
            counts = {"expected": expected, "predicted": expected & heads, "acted": expected & acting}
            counts |= {"both": expected & heads & acting, "all_predicted": heads, "all_both": heads & acting}
            found.append({"probe": number, "steps": steps} | {name: int(mask.sum()) for name, mask in counts.items()})
    return found
