"""Base class of the LightningModules that attribute the answers of a task, batch by batch."""

from dataclasses import replace
from typing import Any

from datamodules import Prompts
from extract.errors import UserError
from extract.llm import LLM, narrowest_window
from extract.pipeline import LLMStage
from extract.tasks import MultiHopQA, PromptBatch
from extract.tasks.sources import Record
from probe.attribution.prompts import SourcedPrompt, SourcedPrompts
from probe.attribution.record import AttributionRecord, check_lengths, record_answers
from probe.attribution.sources import Unit


class AttributionStage(LLMStage):
    """Runs the frozen model on a task's questions, whose context is divided into sources.

    Answers are generated, or those of the task along which the model is run (`task.teacher_forcing`).

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        unit: What a source is: a `sentence`, a `passage` or a `token` of the context.

    """

    experiment = "attribution"
    _finished: frozenset[int] = frozenset()

    def __init__(self, llm: LLM | None, unit: Unit) -> None:
        super().__init__(llm)
        self.unit = unit

    @property
    def _task(self) -> MultiHopQA:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Prompts) or not isinstance(data.task, MultiHopQA):
            raise UserError(
                f"{self.experiment} runs on datamodules.Prompts with extract.MultiHopQA: set data.class_path to it"
            )
        return data.task

    def check_task(self) -> MultiHopQA:
        """The task.

        Raises:
            UserError: another data module or task, or one that does not show the whole context.

        """
        task = self._task
        if task.context != "full":
            raise UserError(f"task.context: {self.experiment} needs the full context as sources, not '{task.context}'")
        return task

    def check_prompts(self) -> None:
        """Check the prompts and their sources; the model is not loaded."""
        task = self._task
        self.prompts = SourcedPrompts(self.llm, task.texts, self.unit)
        if narrowest_window(self.llm) is not None:
            for index in task.order():
                check_lengths(self.llm, self._prompt(index), task.sample(index).budget)
        else:  # the task has left out what does not fit
            self._prompt(task.order()[0])
        self.given = task.sample(task.order()[0]).forced is not None

    def finished_batches(self) -> frozenset[int]:
        """Numbers of the batches that an earlier run finished; the data module skips them."""
        return self._finished

    def on_test_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()

    def run_settings(self) -> dict[str, Any]:
        """Model, questions and batches in plain values."""
        data: Any = getattr(self.trainer, "datamodule")  # noqa: B009 (mypy knows no datamodule)
        return {"llm": self.llm.identity.as_dict(), **data.describe(), "unit": self.unit}

    def _record(self, index: int) -> Record:
        """A question's record without passages that have no text."""
        record = self._task.record(index)
        return replace(record, passages=tuple(one for one in record.passages if one.text.strip()))

    def _prompt(self, index: int) -> SourcedPrompt:
        record = self._record(index)
        return self.prompts.build(record.question, record.passages)

    def answers(self, batch: PromptBatch) -> list[tuple[SourcedPrompt, AttributionRecord]]:
        """Decode a batch, and record what each answer leaves."""
        prompts = [self._prompt(sample.index) for sample in batch.samples]
        form = self._task.answer_format
        answers = [form.gold_text(sample.gold) for sample in batch.samples] if self.given else None
        return list(zip(prompts, record_answers(self.llm, prompts, answers, self._task.budget), strict=True))
