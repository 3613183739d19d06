"""Identity of a language model: the weights and shape that stores and probes are bound to."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LLMIdentity:
    """What a score store and a probe remember of the model they belong to.

    Attributes:
        name: As the user named it.
        weights: `sha256:…` of local weights, or `commit:…` of a hub revision. Equal weights mean the same model.
        layers, heads: Number of layers and of query heads in each.
        hidden_size: Width of the final hidden state.
        dtype: Computing precision of the run, and how the weights were quantised while loading.

    """

    name: str
    weights: str
    layers: int
    heads: int
    hidden_size: int
    dtype: str

    def same_model(self, other: "LLMIdentity") -> bool:
        """Whether both are the same weights; the name and the precision may differ."""
        return self.weights == other.weights

    def __str__(self) -> str:
        return f"{self.name} ({self.weights[:19]}, {self.layers} layers × {self.heads} heads)"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return asdict(self)
