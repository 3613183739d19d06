"""The dynamic heads of a recorded forward, their order, and the interface of what chooses the heads to ablate."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.attention import Recorder, RecordingPlan, recording
from extract.contribution import LogitContributions, Sources
from extract.generation.batching import Batch, reasoning_columns
from extract.scores import REASONING_THRESHOLD, ExcludedKeys, Target, copy_paste_score, is_dynamic, reasoning_score
from extract.utils import NonNegativeInt, Share, check_fields

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class DynamicHeads:
    """What makes a head dynamic at a step (see `extract.scores.is_dynamic`).

    Attributes:
        target: `copy_paste`: a head with Eq. 1; such heads are ordered by their attention on the needle, since their
            scores tie at 1. `reasoning`: a head whose Eq. 2 is at least `threshold`; such heads are ordered by it.
            `contribution`: a head through which the evidence adds at least `threshold` to the generated token's logit;
            such heads are ordered by it, and a head that is ablated contributes nothing.
        threshold: Of reasoning scores, or of contributions in logits.
        sink, local: First and last tokens that Eq. 2 leaves out (see `extract.scores.ExcludedKeys`).

    >>> DynamicHeads().describe()
    {'target': 'copy_paste'}
    >>> DynamicHeads("reasoning").describe()
    {'target': 'reasoning', 'threshold': 0.5, 'sink': 4, 'local': 64}
    >>> DynamicHeads("contribution").describe()
    {'target': 'contribution', 'threshold': 0.5}

    """

    target: Target = "copy_paste"
    threshold: Share = REASONING_THRESHOLD
    sink: NonNegativeInt = ExcludedKeys.sink
    local: NonNegativeInt = ExcludedKeys.local

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def excluded(self) -> ExcludedKeys:
        """Keys that Eq. 2 leaves out."""
        return ExcludedKeys(self.sink, self.local)

    def describe(self) -> dict[str, Any]:
        """The settings that matter for the target."""
        if self.target == "reasoning":
            return asdict(self)
        return {"target": self.target, **({"threshold": self.threshold} if self.target == "contribution" else {})}

    def columns(self, batch: Batch, keys: int) -> Float[Tensor, "batch key column"]:
        """Columns over which a forward of `keys` keys must sum attention (see `RecordingPlan.columns`)."""
        if self.target != "reasoning":
            return batch.evidence[:, :keys, None].float()
        return reasoning_columns(batch, keys, self.excluded)

    @contextmanager
    def recording(
        self, model: "PreTrainedModel", plan: RecordingPlan, batch: Batch
    ) -> Iterator[tuple[Recorder, LogitContributions | None]]:
        """Record a forward with all that `scored` needs: the recorder, and what computes contributions, if any does."""
        if self.target != "contribution":
            with recording(model, plan) as recorder:
                yield recorder, None
            return
        contributions = LogitContributions(
            model, Sources.of(batch.evidence[..., None], batch.evidence_here[..., None]), steps=1
        )
        with contributions.recording(plan) as recorder:
            yield recorder, contributions

    def scored(
        self,
        recorder: Recorder,
        columns: Float[Tensor, "batch key column"],
        batch: Batch,
        generated: Int[Tensor, "batch"],
        contributions: LogitContributions | None = None,
        ablated: Bool[Tensor, "batch head"] | None = None,
    ) -> tuple[Bool[Tensor, "batch head"], Float[Tensor, "batch head"]]:
        """The dynamic heads of the last forward, layer-major, and their order: higher first.

        Args:
            recorder: Of that forward.
            columns: Over which it summed attention.
            batch: Its rows.
            generated: The token that each row generated.
            contributions: Of that forward, where the target is `contribution`.
            ablated: Heads whose output was replaced in that forward.

        """
        if contributions is not None:
            contributions.add(recorder, generated)
            score = contributions.result()[:, 0, :, :, 0].flatten(1)
            score = score if ablated is None else score.masked_fill(ablated, 0)
            return is_dynamic(score, self.target, self.threshold), score
        keys, mass = columns.shape[1], recorder.mass.flatten(1, 2)
        if self.target == "copy_paste":
            argmax = recorder.argmax.flatten(1)
            score = copy_paste_score(argmax, batch.tokens[:, :keys], batch.evidence[:, :keys], generated)
            order = mass[..., 0]
        else:
            score = reasoning_score(mass[..., 0], mass[..., 1], columns[..., 0].any(dim=1))
            order = score.nan_to_num(nan=-1.0)  # heads without a score come last
        return is_dynamic(score, self.target, self.threshold), order


@dataclass(frozen=True)
class StepHeads:
    """The heads of one decoding step, after its clean pass; a row is a sample.

    Attributes:
        dynamic: Dynamic heads of the step, layer-major.
        order: What orders them, higher first.
        sample: Number of each row's sample (`Sample.index`), on the host.
        step: Number of each row's step, from 0, on the host: answers of one batch may have begun at different times.

    """

    dynamic: Bool[Tensor, "row head"]
    order: Float[Tensor, "row head"]
    sample: Int[Tensor, "row"]
    step: Int[Tensor, "row"]


@runtime_checkable
class Selection(Protocol):
    """Chooses the heads to ablate at a step."""

    def ablated(self, heads: StepHeads) -> Bool[Tensor, "row head"]:
        """The heads to ablate; the same for a sample whatever batch it is in."""
