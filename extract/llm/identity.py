"""Identity of a language model: the weights and shape that stores and probes are bound to."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.utils import sha256


@dataclass(frozen=True)
class LLMIdentity:
    """Identity of a language model, kept in every score store and probe.

    Attributes:
        name: As the user named it.
        weights: `sha256:…` of local weights, or `commit:…` of a hub revision. Equal weights mean the same model.
        layers, heads: Number of layers, and of query heads in each.
        hidden_size: Width of the final hidden state.
        dtype: Computing precision of the run, and how the weights were quantized while loading.

    >>> tiny = LLMIdentity("tiny", "sha256:ab12", layers=2, heads=3, hidden_size=8, dtype="float32")
    >>> print(tiny)
    tiny (sha256:ab12, 2 layers × 3 heads)

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


def weights_hash(folder: Path) -> str:
    """`sha256:…` of a saved model's weight files: of the file, or of the files' hashes where there are several."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) == 1:
        return f"sha256:{sha256(files[0])}"
    digests = "".join(sha256(file) for file in files)
    return f"sha256:{hashlib.sha256(digests.encode()).hexdigest()}"


def hub_commit(name: str, config: Any) -> str:
    """`commit:…` that a hub model was loaded at.

    Raises:
        UserError: the hub gave none.

    """
    commit = getattr(config, "_commit_hash", None)
    if commit is None:
        raise UserError(f"llm '{name}': the hub gave no commit to identify its weights by; download it first")
    return f"commit:{commit}"
