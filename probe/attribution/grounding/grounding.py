"""Grounding of answers: questions with their evidence, with other sentences in its place, and with a contradiction."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks import MultiHopQA, PromptBatch
from extract.utils import on_rank_zero
from probe.attribution.grounding.contexts import CONTEXTS, Context, Question, questions_of
from probe.attribution.grounding.outcomes import GroundingOutcomes, TrainingShare
from probe.attribution.grounding.tables import grounding_tables, plot_auroc
from probe.attribution.grounding.trial import grounding_trials, record_fields
from probe.attribution.prompts import SourcedPrompt, SourcedPrompts
from probe.attribution.record import AttributionRecord, check_lengths, record_answers
from probe.attribution.sources import Unit
from probe.attribution.stage import AttributionStage
from probe.metrics import Bootstrap
from probe.results import Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Grounding(AttributionStage):
    """Answer each question with three contexts, and evaluate which scores separate grounded answers from others.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        unit: What a source is: a `sentence`, a `passage` or a `token` of the context; shares are of positive sums of
            sources.
        training_questions: Questions on which thresholds are chosen.
        trials: Folder of finished batches, which the same command continues.
        bootstrap: For the intervals.

    """

    experiment = "grounding"

    def __init__(
        self,
        llm: LLM | None = None,
        unit: Unit = "sentence",
        training_questions: TrainingShare = TrainingShare(),  # noqa: B008 (frozen)
        trials: str = "runs/grounding/trials",
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(llm, unit)
        self.training_questions = training_questions
        self.trials, self.bootstrap = Trials(trials), bootstrap
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Make the contexts, check their prompts, and find the batches that are finished; the model is not loaded."""
        del stage
        task = self.check_task()
        if task.teacher_forcing:
            raise UserError("task.teacher_forcing: grounding is evaluated on generated answers; set it to false")
        self.prompts = SourcedPrompts(self.llm, task.texts, self.unit)
        self._make_questions(task)
        self.settings = self.run_settings()
        self._finished = frozenset(on_rank_zero(self.trainer, lambda: self.trials.open(self.settings)))

    def _make_questions(self, task: MultiHopQA) -> None:
        """Contexts and prompts of each question that has all three; what does not fit the model is left out."""
        indices = sorted(task.order())
        records = [self._record(index) for index in indices]
        found, self.left_out = questions_of(records)
        self.questions: dict[int, Question] = {}
        self._prompts: dict[int, dict[Context, SourcedPrompt]] = {}
        for place, question in found.items():
            prompts = {name: self.prompts.build(one.question, one.passages) for name, one in question.records.items()}
            longest = max(len(prompt.ids) for prompt in prompts.values())
            if longest + task.budget > self.llm.context_length:
                reason = "a prompt exceeds the model's context"
                self.left_out[reason] = self.left_out.get(reason, 0) + 1
                continue
            for prompt in prompts.values():
                check_lengths(self.llm, prompt, task.budget)
            self.questions[indices[place]], self._prompts[indices[place]] = question, prompts

    def test_step(self, batch: PromptBatch) -> None:
        """Answer the questions of one batch with each context, and write their trials."""
        if not batch.samples:
            return
        samples = {sample.index: sample for sample in batch.samples if sample.index in self.questions}
        records: dict[int, dict[Context, AttributionRecord]] = {index: {} for index in samples}
        for context in CONTEXTS:
            prompts = [self._prompts[index][context] for index in samples]
            answers = record_answers(self.llm, prompts, budget=self._task.budget)
            for index, record in zip(samples, answers, strict=True):
                records[index][context] = record
        form = self._task.answer_format
        self.trials.write(
            batch.number,
            [
                {"sample": index, "id": sample.name, **trial}
                for index, sample in samples.items()
                for trial in grounding_trials(
                    self.llm, form, self.questions[index], self._prompts[index], records[index]
                )
            ],
        )

    def on_test_epoch_end(self) -> None:
        """Metrics of all trials, on every process, once all are finished."""
        self.trainer.strategy.barrier("trials")
        trials = self.trials.read()
        if (finished := len({trial["sample"] for trial in trials})) != len(self.questions):
            raise UserError(
                f"{self.trials.folder}: {finished} of {len(self.questions)} questions; run the same command again"
            )
        outcomes = GroundingOutcomes(trials, self.training_questions)
        self._trials = outcomes.trials
        self.results = {
            **self.settings,
            "left_out": self.left_out,
            "training": asdict(self.training_questions),
            "seed": self.bootstrap.seed,
            "resamples": self.bootstrap.resamples,
            "trials": str(self.trials.folder),
            **outcomes.measured(self.bootstrap),
        }
        for name, found in self.results["auroc"]["all"]["answer"].items():
            self.log(f"auroc/{name}", found["value"], sync_dist=True)

    def teardown(self, stage: str) -> None:
        """Let other runs write to the trials."""
        del stage
        self.trials.close()

    def records(self) -> list[dict[str, Any]]:
        """Every trial, its answer's scores as columns."""
        rows = [record_fields(trial) for trial in self._trials]
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def table(self) -> Group:
        """Areas under the ROC curve, differences from the baselines, thresholds."""
        return grounding_tables(self.results)

    def plots(self) -> "dict[str, Figure]":
        """Areas under the ROC curve."""
        return {"auroc": plot_auroc(self.results)}
