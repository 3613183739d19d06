"""Attribution of answers to their sources: methods compared on the same answers, generated or given."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rich.console import Group

from extract.errors import UserError
from extract.llm import LLM
from extract.store import content_id
from extract.tasks import MultiHopQA, PromptBatch, Sample
from extract.utils import on_rank_zero
from probe.attribution.experiment.outcomes import AttributionOutcomes, attribution_table
from probe.attribution.experiment.plots import plot_cost
from probe.attribution.experiment.trial import Evaluation, attribution_trials, sample_fields
from probe.attribution.methods import AttributionMethod
from probe.attribution.prompts import SourcedPrompt
from probe.attribution.sources import Unit
from probe.attribution.stage import AttributionStage
from probe.metrics import Bootstrap
from probe.results import Trial, Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Attribution(AttributionStage):
    """Attribute every answer with every method, and evaluate the scores on held-out ablations.

    Answers are generated, or those of the task along which the model is run (`task.teacher_forcing`).

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        methods: The methods; the others are compared with the first.
        unit: What a source is: a `sentence`, a `passage` or a `token` of the context.
        evaluation: How the methods are evaluated.
        trials: Folder of finished batches, which the same command continues.
        bootstrap: For the intervals.

    """

    def __init__(
        self,
        llm: LLM | None = None,
        methods: list[AttributionMethod] | None = None,
        unit: Unit = "sentence",
        evaluation: Evaluation = Evaluation(),  # noqa: B008 (frozen)
        trials: str = "runs/attribution/trials",
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(llm, unit)
        self.methods, self.evaluation = methods or [], evaluation
        self.trials, self.bootstrap = Trials(trials), bootstrap
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Prepare the methods, check the prompts, and find the batches that are finished; the model is not loaded."""
        del stage
        task = self.check_task()
        self._check_methods()
        self._refuse_training_answers(task)
        self.check_prompts()
        self.settings = {**self.run_settings(), **self._describe()}
        self._finished = frozenset(on_rank_zero(self.trainer, lambda: self.trials.open(self.settings)))

    def _check_methods(self) -> None:
        if not self.methods:
            raise UserError("model.methods: at least one attribution method is needed")
        repeated = [name for name, count in Counter(method.name for method in self.methods).items() if count > 1]
        if repeated:
            raise UserError(f"model.methods: several are named '{repeated[0]}'; give one of them another `name`")
        for method in self.methods:
            method.prepare(self.llm)

    def _refuse_training_answers(self, task: MultiHopQA) -> None:
        """Refuse questions that a method was trained or chosen on."""
        records = map(task.record, task.order())
        self._samples = {content_id(record.question, record.answer) for record in records}
        for method in self.methods:
            if shared := sorted(self._samples & method.training_ids):
                raise UserError(
                    f"{len(shared)} of the questions are training questions of '{method.name}' ({shared[0]}, …): "
                    "take others, by another seed or other files"
                )

    def _describe(self) -> dict[str, Any]:
        """What determines the trials, beside the prompts."""
        methods = {method.name: method.describe() for method in self.methods}
        return {
            "methods": methods,
            "evaluation": {**asdict(self.evaluation), "top": list(self.evaluation.top)},
        }

    def test_step(self, batch: PromptBatch) -> None:
        """Record the answers of one batch, attribute them, and write their trials."""
        if not batch.samples:
            return
        found = [
            self._attributed(sample, prompt, record)
            for sample, (prompt, record) in zip(batch.samples, self.answers(batch), strict=True)
        ]
        self.trials.write(batch.number, [trial for trials in found for trial in trials])

    def _attributed(self, sample: Sample, prompt: SourcedPrompt, answer: Any) -> list[Trial]:
        """Trials of one answer; of an empty one a single trial without a method."""
        record, task = self._record(sample.index), self._task
        correct = task.grade(replace(sample, forced=None), answer.text)["contains"]
        fields = {"sample": sample.index, "id": sample.name, **sample_fields(prompt, answer, record, correct)}
        if not len(answer.tokens):
            return [{**fields, "method": None, "metrics": {}, "scores": []}]
        trials = attribution_trials(self.llm, self.methods, self.evaluation, record, prompt, answer)
        return [{**fields, **trial} for trial in trials]

    def on_test_epoch_end(self) -> None:
        """Metrics of all trials, on every process, once all are finished."""
        self.trainer.strategy.barrier("trials")
        trials = self.trials.read()
        if (finished := len({trial["sample"] for trial in trials})) != len(self._task):
            raise UserError(
                f"{self.trials.folder}: {finished} of {len(self._task)} answers; run the same command again"
            )
        self._trials = [trial for trial in trials if trial["method"] is not None]
        if not self._trials:
            raise UserError(
                "every answer is empty, so that there is nothing to attribute; choose another task or model"
            )
        outcomes = AttributionOutcomes.of(self._trials)
        self.results = {**self.settings, **self._measured(outcomes), "empty_answers": len(self._task) - len(outcomes)}
        for method, estimates in self.results["metrics"]["all"].items():
            for metric in outcomes.metrics:
                self.log(f"{metric}/{method}", estimates[metric]["value"], sync_dist=True)

    def _measured(self, outcomes: AttributionOutcomes) -> dict[str, Any]:
        groups = outcomes.groups()
        return {
            "answers": len(outcomes),
            "correct": int(outcomes.correct.sum()),
            "given_answers": self.given,
            "seed": self.bootstrap.seed,
            "resamples": self.bootstrap.resamples,
            "trials": str(self.trials.folder),
            "metrics": {name: outcomes.estimates(chosen, self.bootstrap) for name, chosen in groups.items()},
            "pairs": {name: outcomes.pairs(chosen, self.bootstrap) for name, chosen in groups.items()},
        }

    def teardown(self, stage: str) -> None:
        """Let other runs write to the trials."""
        del stage
        self.trials.close()

    def records(self) -> list[dict[str, Any]]:
        """Every trial, its metrics as columns."""
        left_out: Sequence[str] = ("metrics", "scores")
        return [
            {**{key: value for key, value in trial.items() if key not in left_out}, **trial["metrics"]}
            for trial in self._trials
        ]

    def table(self) -> Group:
        """Methods with their intervals, and the difference of each from the first."""
        return attribution_table(self.results)

    def plots(self) -> "dict[str, Figure]":
        """LDS by cost."""
        return {"lds_by_cost": plot_cost(self.results)}
