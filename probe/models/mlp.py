"""The probe's network: an MLP from the hidden state to one output for each head."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["relu", "gelu", "silu", "tanh"]
"""Name of an activation."""
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """Multi-layer perceptron: hidden layers of linear map, activation and dropout, then a linear output (A.5).

    Args:
        in_features: Hidden size of the LLM.
        hidden: Widths of the hidden layers.
        out_features: Number of heads.
        dropout: Dropout probability after each hidden layer.
        activation: Name of the hidden layers' activation.

    >>> [tuple(parameter.shape) for parameter in MLP(8, hidden=[4], out_features=6, dropout=0.1).parameters()]
    [(4, 8), (4,), (6, 4), (6,)]

    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        dropout: float,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        blocks: list[nn.Module] = []
        for before, after in pairwise(widths):
            blocks += [nn.Linear(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*blocks, nn.Linear(widths[-1], out_features))

    def forward(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Logits, or predicted scores, of all heads."""
        output: Tensor = self.layers(hidden)
        return output
