"""Extraction as a LightningModule: `lightning predict` runs it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning.pytorch.callbacks import ProgressBar

from extract.attention import Slots, slots_of
from extract.contribution import readout_of
from extract.generation import Decoded, decode, decode_continuously
from extract.llm import LLM
from extract.pipeline.llm_module import LLMStage
from extract.pipeline.prompt_progress import PromptProgress, prompts_of, replaceable_bar
from extract.prompts import decode_text
from extract.scores import ExcludedKeys
from extract.tasks import PromptBatch
from extract.utils import NonNegativeInt


@dataclass(frozen=True)
class Extracted:
    """Outcome of one batch.

    Attributes:
        decoded: Generations with scores; None for an empty batch.
        answers: The generations as text.
        continuations: Text after each forced opening; empty where none was forced.
        metrics: Of each answer.

    """

    decoded: Decoded | None
    answers: list[str]
    continuations: list[str]
    metrics: list[dict[str, float]]


class Extraction(LLMStage):
    """Generate greedily and score every head at every step; the `ScoreWriter` callback stores the rows.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        sink: First tokens that Eq. 2 leaves out.
        local: Last tokens that Eq. 2 leaves out, the query's own included.
        contribution: Also compute each head's logit contribution from the evidence (`extract.contribution`).
        slots: Prompts of a batch that are decoded together, where one that ends makes place for the next (continuous
            batching); `auto`: as many as memory holds; None: all of a batch, whose ended prompts run along to its end.

    """

    def __init__(
        self,
        llm: LLM | None = None,
        sink: NonNegativeInt = ExcludedKeys.sink,
        local: NonNegativeInt = ExcludedKeys.local,
        contribution: bool = False,
        slots: Slots = None,
    ) -> None:
        super().__init__(llm)
        self.excluded, self.contribution, self.slots = ExcludedKeys(sink, local), contribution, slots
        self._bar: ProgressBar | None = None
        self._progress: PromptProgress | None = None

    def describe(self) -> dict[str, Any]:
        """The settings that determine scores, for the store's manifest."""
        return {**asdict(self.excluded), "contribution": self.contribution}

    def setup(self, stage: str) -> None:
        """Replace Lightning's progress bar, which counts batches, before it is drawn."""
        if stage == "predict" and (bar := replaceable_bar(self.trainer)) is not None:
            self._bar = bar
            bar.disable()

    def on_predict_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()
        if self.contribution:
            readout_of(self.llm.model)  # refuses a model whose readout is not known, before any work
        if self._bar is not None:
            self._progress = PromptProgress(*prompts_of(self.trainer))

    def on_predict_epoch_end(self) -> None:
        """Remove the line of progress before the store is reported."""
        self._end_progress()

    def teardown(self, stage: str) -> None:
        """Give the progress bar back."""
        del stage
        self._end_progress()
        if self._bar is not None:
            self._bar.enable()
            self._bar = None

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def predict_step(self, batch: PromptBatch) -> Extracted:
        """Decode and evaluate one batch."""
        if not batch.samples:
            return Extracted(None, [], [], [])
        if self._progress is not None:
            self._progress.begin(batch.samples)
        decoded = self._decode(batch)
        if self._progress is not None:
            self._progress.end()
        pairs = zip(decoded.tokens.tolist(), decoded.lengths, strict=True)
        answers = [str(self.llm.tokenizer.decode(row[:n], skip_special_tokens=True)).strip() for row, n in pairs]
        forced = [None if ids is None else decode_text(self.llm.tokenizer, ids) for ids in decoded.continuations]
        graded = zip(batch.samples, answers, forced, strict=True)
        metrics = [batch.task.grade_all(sample, answer, continuation) for sample, answer, continuation in graded]
        return Extracted(decoded, answers, [text or "" for text in forced], metrics)

    def _decode(self, batch: PromptBatch) -> Decoded:
        opening, watch = batch.task.opening(self.llm.tokenizer), self._progress
        slots = slots_of(self.slots, self.llm.model, [len(sample.ids) + sample.budget for sample in batch.samples])
        if slots is not None:
            return decode_continuously(self.llm, batch.samples, slots, self.excluded, opening, watch, self.contribution)
        sources: Literal["evidence"] | None = "evidence" if self.contribution else None
        return decode(self.llm, batch.samples, self.excluded, opening, watch, sources)
