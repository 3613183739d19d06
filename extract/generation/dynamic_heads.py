"""Which heads are dynamic at a step, and which of them come first."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import Recorder
from extract.generation.batching import Batch, reasoning_columns
from extract.scores import REASONING_THRESHOLD, ExcludedKeys, Target, copy_paste_score, is_dynamic, reasoning_score


@dataclass(frozen=True)
class DynamicHeads:
    """The heads that score at a step.

    Attributes:
        target: `copy_paste`: heads of Eq. 1, ordered by their attention on the needle, since their scores tie at 1.
            `reasoning`: heads whose Eq. 2 is at least `threshold`, ordered by it.
        threshold: For reasoning scores.
        sink, local: First and last tokens that Eq. 2 leaves out.

    """

    target: Target = "copy_paste"
    threshold: float = REASONING_THRESHOLD
    sink: int = ExcludedKeys.sink
    local: int = ExcludedKeys.local

    def describe(self) -> dict[str, Any]:
        """The settings that matter for the target."""
        if self.target == "copy_paste":
            return {"target": self.target}
        return {"target": self.target, "threshold": self.threshold, "sink": self.sink, "local": self.local}

    def columns(self, batch: Batch, keys: int) -> Float[Tensor, "batch key column"]:
        """What a forward over `keys` keys must sum attention over."""
        if self.target == "copy_paste":
            return batch.evidence[:, :keys, None].float()
        return reasoning_columns(batch, keys, ExcludedKeys(self.sink, self.local))

    def scored(
        self, recorder: Recorder, batch: Batch, keys: int, generated: Int[Tensor, "batch"]
    ) -> tuple[Bool[Tensor, "batch head"], Float[Tensor, "batch head"]]:
        """The dynamic heads of the last forward, layer-major, and their order: higher first."""
        mass = recorder.mass.flatten(1, 2)
        if self.target == "copy_paste":
            argmax = recorder.argmax.flatten(1)
            score = copy_paste_score(argmax, batch.tokens[:, :keys], batch.evidence[:, :keys], generated)
            order = mass[..., 0]
        else:
            assert recorder.columns is not None
            score = reasoning_score(mass[..., 0], mass[..., 1], recorder.columns[..., 0].any(dim=1))
            order = score.nan_to_num(nan=-1.0)
        return is_dynamic(score, self.target, self.threshold), order
