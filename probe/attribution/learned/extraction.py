"""Extraction of ablation effects: training answers are recorded, and run again without random sources."""

from typing import Any

import torch

from extract.contribution import readout_of
from extract.llm import LLM
from extract.tasks import PromptBatch, Sample
from extract.utils import PositiveInt, on_rank_zero
from probe.attribution.ablated_runs import AblatedRuns
from probe.attribution.learned.effects import AnswerEffects, EffectStore
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.record import AttributionRecord
from probe.attribution.sources import Unit
from probe.attribution.stage import AttributionStage
from probe.results import Trial


class EffectExtraction(AttributionStage):
    """Answer training questions, and measure each answer's log-probability in random ablations of its sources.

    The same command continues an interrupted run.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        store: Folder of the effects (linked from the top-level `store:`).
        unit: What a source is: a `sentence`, a `passage` or a `token` of the context.
        ablations: Random ablations of each answer, each source staying with probability ½; fewer for a few sources.

    """

    def __init__(
        self,
        llm: LLM | None = None,
        store: str = "stores/effects",
        unit: Unit = "sentence",
        ablations: PositiveInt = 48,
    ) -> None:
        super().__init__(llm, unit)
        self.effects, self.ablations = EffectStore(store), ablations

    def setup(self, stage: str) -> None:
        """Check the prompts, and find the batches that are finished; the model is not loaded."""
        del stage
        task = self.check_task()
        self.check_prompts()
        config = {**self.run_settings(), "ablations": self.ablations, "answers": len(task)}
        self._finished = frozenset(on_rank_zero(self.trainer, lambda: self.effects.begin(config)))

    def on_predict_start(self) -> None:
        """Put the model where the Trainer works; refuse one whose readout is not known, before any work."""
        self.place_llm()
        readout_of(self.llm.model)

    @torch.inference_mode()
    def predict_step(self, batch: PromptBatch) -> int:
        """Record the answers of one batch, and run each without random sources; the batch's number."""
        if not batch.samples:
            return batch.number
        rows, effects = list[Trial](), dict[int, AnswerEffects]()
        for sample, (prompt, record) in zip(batch.samples, self.answers(batch), strict=True):
            rows.append(self._row(batch.number, sample, prompt, record))
            if not len(record.tokens):
                continue
            runs = AblatedRuns(self.llm, prompt, record.tokens)
            masks = runs.sampled(self.ablations)
            effects[sample.index] = AnswerEffects(sample.id, record, masks, runs.log_probs(masks))
            rows[-1] |= {"runs": len(masks), "forward_tokens": runs.cost(masks)}
        self.effects.write(batch.number, rows, effects)
        return batch.number

    def _row(self, batch: int, sample: Sample, prompt: SourcedPrompt, record: AttributionRecord) -> dict[str, Any]:
        return {
            "batch": batch,
            "sample": sample.index,
            "id": sample.id,
            "question": prompt.question,
            "gold": sample.gold,
            "texts": list(record.texts),
            "tokens": len(record.tokens),
            "sources": len(prompt.sources),
            "prompt_tokens": len(prompt.ids),
            "runs": 0,
            "forward_tokens": 0,
        }

    def teardown(self, stage: str) -> None:
        """Let other runs write to the store."""
        del stage
        self.effects.close()
