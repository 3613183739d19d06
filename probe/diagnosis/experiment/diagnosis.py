"""Diagnosis of failed answers: causes, interventions on held-out failures, prediction of failure."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group

from datamodules import Prompts
from extract.errors import UserError
from extract.llm import LLM
from extract.pipeline import LLMStage
from extract.tasks import PromptBatch, Task
from extract.utils import PositiveInt, on_rank_zero
from probe.diagnosis.answers import Recording, record_batch
from probe.diagnosis.causes import CHANCE, Cause, Thresholds
from probe.diagnosis.experiment.outcomes import summary, training_thresholds, with_causes
from probe.diagnosis.experiment.plots import plot_grid, plot_rescues
from probe.diagnosis.experiment.predicted import predicted_summary
from probe.diagnosis.experiment.prediction import predict_failure
from probe.diagnosis.experiment.reported import with_reported
from probe.diagnosis.experiment.table import diagnosis_table
from probe.diagnosis.predicted_heads import ReadProbe
from probe.diagnosis.settings import Intervening, TrainingPrompts
from probe.diagnosis.trial import INTERVENTIONS, diagnosis_trials
from probe.metrics import Bootstrap
from probe.results import Trial, Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Diagnosis(LLMStage):
    """Answer every prompt, sort failed answers by cause, and test the causes by interventions.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        metric: The task's metric below 1 of which an answer failed; null: its first.
        early: First tokens whose record predicts failure.
        training: Prompts whose solved answers give the thresholds.
        thresholds: Borders between causes; null: from the solved answers of training prompts.
        interventions: Interventions on held-out failures; null: none.
        probe: Checkpoints of probes, of this step or of later ones (data.offset), that predict which heads act at the
            critical token; null: none.
        supported: Causes that the claims of a former run support; reported on their own beside those of this one.
        trials: Folder of finished batches, which the same command continues.
        bootstrap: For the intervals of the prediction.

    """

    experiment = "diagnosis"

    def __init__(
        self,
        llm: LLM | None = None,
        metric: str | None = None,
        early: PositiveInt = 4,
        training: TrainingPrompts = TrainingPrompts(),  # noqa: B008 (frozen)
        thresholds: Thresholds | None = CHANCE,
        interventions: Intervening | None = Intervening(),  # noqa: B008 (frozen)
        probe: str | list[str] | None = None,
        supported: tuple[Cause, ...] = (),
        trials: str = "runs/diagnosis/trials",
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(llm)
        self.metric, self.early, self.training_prompts, self.given = metric, early, training, thresholds
        self.interventions, self.trials, self.bootstrap = interventions, Trials(trials), bootstrap
        self.checkpoints = [probe] if isinstance(probe, str) else list(probe or [])
        self.supported = supported
        self.results: dict[str, Any] = {}

    @property
    def _task(self) -> Task:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Prompts):
            raise UserError("diagnosis runs on datamodules.Prompts: set data.class_path to it")
        return data.task

    def setup(self, stage: str) -> None:
        """Check the prompts, and find the batches that are finished; the model is not loaded."""
        del stage
        task, data = self._task, getattr(self.trainer, "datamodule")  # noqa: B009 (mypy knows no datamodule)
        first = task.sample(task.order()[0])
        self._check(task)
        metrics = list(task.grade(first, first.gold))
        if self.metric is not None and self.metric not in metrics:
            raise UserError(f"model.metric: the task has {', '.join(metrics)}, not '{self.metric}'")
        probes = tuple(ReadProbe.of(checkpoint, self.llm) for checkpoint in self.checkpoints)
        self.recording = Recording(
            self.metric or metrics[0], self.early, self.training_prompts, self.interventions, probes
        )
        self.settings = {"llm": self.llm.identity.as_dict(), **data.describe(), **self._describe()}
        self._finished = frozenset(on_rank_zero(self.trainer, lambda: self.trials.open(self.settings)))

    def _check(self, task: Task) -> None:
        for index in task.order():
            sample = task.sample(index)
            if sample.forced is not None:
                raise UserError("task.teacher_forcing: a diagnosis needs the model's own answers; set it to false")
            start, end = task.context_span(index)
            if not sample.evidence or any(not start <= a < b <= end for a, b in sample.evidence):
                raise UserError(
                    f"sample {sample.name}: a diagnosis needs evidence within a shown context; "
                    "choose a task with marked evidence, and `context: full`"
                )

    def _describe(self) -> dict[str, Any]:
        """What determines the trials, beside the prompts."""
        probes = [one.describe() for one in self.recording.probes]
        return {
            **({"probes": probes} if probes else {}),
            "metric": self.recording.metric,
            "early": self.early,
            "training": {name: value for name, value in asdict(self.training_prompts).items() if name != "tail"},
            "intervening": None if self.interventions is None else asdict(self.interventions),
        }

    def finished_batches(self) -> frozenset[int]:
        """Numbers of the batches whose trials an earlier run finished; the data module skips them."""
        return self._finished

    def on_test_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()

    def test_step(self, batch: PromptBatch) -> None:
        """Record the answers of one batch, intervene, and write their trials."""
        if batch.samples:
            answers = record_batch(self.llm, batch.task, batch.samples, self.recording)
            self.trials.write(batch.number, diagnosis_trials(self.llm, batch.task, answers, self.recording))

    def on_test_epoch_end(self) -> None:
        """Causes and rates of all trials, on every process, once all are finished."""
        self.trainer.strategy.barrier("trials")
        trials = sorted(self.trials.read(), key=lambda trial: trial["sample"])
        if (finished := len(trials)) != (expected := len(self._task)):
            raise UserError(f"{self.trials.folder}: {finished} of {expected} answers; run the same command again")
        thresholds = self.given or training_thresholds(trials, self.training_prompts.tail)
        causes = with_causes(trials, thresholds)
        found = summary(causes, self.supported)
        self._trials = with_reported(causes, found["supported"])
        self.results = {
            **self.settings,
            "tail": self.training_prompts.tail,
            "thresholds": None if thresholds is None else asdict(thresholds),
            "given_thresholds": self.given is not None,
            "trials": str(self.trials.folder),
            "resamples": self.bootstrap.resamples,
            "seed": self.bootstrap.seed,
            **found,
            "prediction": predict_failure(self._trials, self.early, self.bootstrap),
            "expected_heads": predicted_summary(self._trials, self.bootstrap),
        }
        for cause, count in self.results["reported"]["held_out"].items():
            self.log(f"failures/{cause}", float(count), sync_dist=True)

    def teardown(self, stage: str) -> None:
        """Let other runs write to the trials."""
        del stage
        self.trials.close()

    def records(self) -> list[dict[str, Any]]:
        """Every answer with its cause, statistics and outcomes of interventions as columns."""
        return [_flat(trial) for trial in self._trials]

    def table(self) -> Group:
        """Causes, claims and prediction."""
        return diagnosis_table(self.results)

    def plots(self) -> "dict[str, Figure]":
        """The grid, where prompts have lengths and depths; rescues by cause, with interventions."""
        plots, name = {}, self.results["llm"]["name"]
        if all(trial["length"] is not None and trial["cell_depth"] is not None for trial in self._trials):
            plots["causes_by_length_and_depth"] = plot_grid(self._trials, f"{len(self._trials)} answers of {name}")
        if self.interventions is not None:
            plots["rescues"] = plot_rescues(self.results)
        return plots


STATISTICS = (
    "position",
    "right",
    "wrong",
    "prior",
    "attended",
    "written",
    "outvoted",
    "prior_wins",
    "follows",
    "matched",
)


def _flat(trial: Trial) -> dict[str, Any]:
    nested = ("signals", "token", "interventions")
    token, outcomes = trial["token"] or {}, trial["interventions"]
    return {
        **{name: value for name, value in trial.items() if name not in nested},
        **{name: token.get(name) for name in STATISTICS},
        "segment": (token.get("segment") or {}).get("text"),
        **{f"rescued_{name}": outcomes.get(name, {}).get("rescued") for name in INTERVENTIONS},
    }
