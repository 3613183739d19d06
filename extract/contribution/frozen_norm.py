"""Normalization layers with frozen statistics: linear maps through which a direction can be pulled back."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference between a module's output and the formula, by precision; outputs are about 1."""


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """RMSNorm or LayerNorm whose statistics are held at their values for an input `x`: `y = gain · x / σ(x) + bias`.

    Attributes:
        gain: Elementwise factor after the normalization.
        centred: Whether the mean is subtracted first (LayerNorm).
        eps: Added to the mean square.

    >>> norm = FrozenNorm(torch.tensor([2.0, 1.0]), centred=False, eps=0.0)
    >>> norm.pull_back(torch.tensor([[1.0, 1.0]]), at=torch.tensor([[1.0, 7.0]]))  # σ = 5
    tensor([[0.4000, 0.2000]])

    """

    gain: Float[Tensor, "hidden"]
    centred: bool
    eps: float

    @classmethod
    def of(cls, module: torch.nn.Module) -> "FrozenNorm | None":
        """The module's formula, found by comparing its output with each of those known; None where none fits.

        Weights come as such or less one (Gemma); without weights the gain is one.
        """
        weight = getattr(module, "weight", None)
        eps: Any = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not isinstance(weight, Tensor) or weight.ndim != 1 or weight.is_meta or not weight.is_floating_point():
            return None
        eps = torch.finfo(weight.dtype).eps if eps is None else float(eps)  # PyTorch's default for RMSNorm
        generator = torch.Generator().manual_seed(0)
        # Not centred, so that the two kinds of norm differ.
        states = (torch.randn(2, len(weight), generator=generator) + 0.5).to(weight)
        output, bias = module(states).float(), getattr(module, "bias", None)
        output = output if bias is None else output - bias.float()
        weight = weight.detach().float()
        for gain in (weight, weight + 1):
            for centred in (False, True):
                norm = cls(gain, centred, eps)
                bound = TOLERANCE.get(states.dtype, 0.0) * max(1.0, float(output.abs().max()))
                if float((norm(states) - output).abs().max()) <= bound:
                    return norm
        return None

    def __call__(self, states: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """The normalized states, without bias, in float32."""
        centred = self._centred(states)
        return centred * self._scale(centred) * self.gain

    def pull_back(
        self, direction: Float[Tensor, "*rows hidden"], at: Float[Tensor, "*rows hidden"]
    ) -> Float[Tensor, "*rows hidden"]:
        """Direction `d` of the output as one of the input: `d' · x = d · y` for the linear map at the input `at`."""
        pulled = direction * self.gain.to(direction.device) * self._scale(self._centred(at))
        return self._centred(pulled)

    def _centred(self, states: Tensor) -> Tensor:
        states = states.float()
        return states - states.mean(dim=-1, keepdim=True) if self.centred else states

    def _scale(self, centred: Tensor) -> Tensor:
        """1 / σ, with the mean square of the (centred) states."""
        return torch.rsqrt(centred.pow(2).mean(dim=-1, keepdim=True) + self.eps)
