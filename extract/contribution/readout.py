"""How a head's output reaches a logit: output projection, norms with frozen statistics, LM head."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from extract.contribution.frozen_norm import FrozenNorm


@dataclass(frozen=True, eq=False)
class LayerWrite:
    """What one layer's attention adds to the residual stream: `factor · norm(W_O z + b)`, `z` all heads' outputs.

    Attributes:
        weight: W_O, as the module holds it, or its transpose.
        heads: Query heads.
        factor: Residual multiplier (Granite); else 1.
        norm: Norm of the attention's output (Gemma-2, OLMo-2); None: none.
        norm_module: The module of that norm.

    """

    weight: Float[Tensor, "hidden headsize"]
    heads: int
    factor: float = 1.0
    norm: FrozenNorm | None = None
    norm_module: torch.nn.Module | None = None

    def pull_back(
        self, direction: Float[Tensor, "*rows hidden"], at: Float[Tensor, "*rows hidden"] | None
    ) -> Float[Tensor, "*rows head vsize"]:
        """Direction of the residual stream as one of each head's output: `W_Oᵀ d`, through the frozen norm.

        The product is in the precision of the weights.

        Args:
            direction: Of the stream, in float32.
            at: What the norm read at this position; None without a norm.

        """
        direction = direction.to(self.weight.device) * self.factor
        if self.norm is not None:
            assert at is not None
            direction = self.norm.pull_back(direction, at.to(self.weight.device))
        pulled: Tensor = (direction.to(self.weight.dtype) @ self.weight).unflatten(-1, (self.heads, -1))
        return pulled


@dataclass(frozen=True, eq=False)
class Readout:
    """How the residual stream becomes logits, and how each layer's heads write to it.

    Attributes:
        layers: Of each layer.
        norm: The final norm.
        norm_module: The module of the final norm.
        head: Weights of the LM head, the unembedding of each token.
        factor: Factor of the logits after the LM head (Cohere, Granite); else 1. A soft cap comes after it.

    """

    layers: tuple[LayerWrite, ...]
    norm: FrozenNorm
    norm_module: torch.nn.Module
    head: Float[Tensor, "vocabulary hidden"]
    factor: float = 1.0

    def direction(
        self, tokens: Int[Tensor, "batch"], at: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch hidden"]:
        """Direction of the residual stream in which the token's logit (before a soft cap) grows, in float32.

        Args:
            tokens: Token of each row.
            at: What the final norm read.

        """
        unembedding = self.head[tokens.to(self.head.device)].float() * self.factor
        return self.norm.pull_back(unembedding, at.to(self.head.device))
