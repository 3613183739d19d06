"""Claim 2: the dynamic heads of a step cannot be replaced by others (Figs. 2, 3, 6 and 7)."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from datamodules import Prompts
from extract.errors import UserError
from extract.generation import DynamicHeads, generate_ablated
from extract.llm import LLM
from extract.pipeline import LLMStage
from extract.tasks import PromptBatch
from extract.utils import on_rank_zero
from probe.experiments.ablation.conditions import AblateDynamic, Condition, NoAblation, TrainingHeads
from probe.experiments.ablation.heatmap_grid import HeatmapGrid
from probe.experiments.ablation.outcomes import Outcomes
from probe.experiments.ablation.plots import plot_heatmaps, plot_sweep
from probe.experiments.ablation.settings import Intervention, StaticSet
from probe.experiments.ablation.table import ablation_table, comparison_text
from probe.experiments.ablation.trial import ablation_trial
from probe.heads import StoreHeads, read_store_heads
from probe.metrics import Bootstrap
from probe.results import Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ablation(LLMStage):
    """Generate every prompt under every condition, and compare the answers.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        store: Its training samples give the static ranking and n (linked from the top-level `store:`).
        conditions: What to ablate, beside generation without ablation, which always runs.
        k: Also ablate only the first k dynamic heads, for each of these numbers (Figs. 3 and 7); 0 ablates none.
        dynamic_heads: What makes a head dynamic.
        static: The static set, and the training samples that it comes from.
        intervention: What ablation changes.
        trials: Folder of finished batches; the same command continues there.
        heatmap: Cells of the heatmaps over context length and depth; null for none.
        bootstrap: For the intervals.

    """

    experiment = "ablation"

    def __init__(
        self,
        llm: LLM | None = None,
        store: str = "stores/niah",
        conditions: list[Condition] | None = None,
        k: list[int] | None = None,
        dynamic_heads: DynamicHeads = DynamicHeads(),  # noqa: B008 (frozen)
        static: StaticSet = StaticSet(),  # noqa: B008 (frozen)
        intervention: Intervention = Intervention(),  # noqa: B008 (frozen)
        trials: str = "runs/ablation/trials",
        heatmap: HeatmapGrid | None = None,
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(llm)
        self.store, self.k, self.listed = store, sorted(set(k or [])), conditions or []
        self.dynamic_heads, self.static, self.intervention = dynamic_heads, static, intervention
        self.trials, self.heatmap, self.bootstrap = Trials(trials), heatmap, bootstrap
        self.results: dict[str, Any] = {}

    @property
    def _data(self) -> Prompts:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Prompts):
            raise UserError("ablation runs on datamodules.Prompts: set data.class_path to it")
        return data

    def setup(self, stage: str) -> None:
        """Read the store, prepare the conditions, and find the batches that are finished."""
        del stage
        data = self._data
        if self.heatmap is not None:
            self.heatmap.check()
        heads = self.dynamic_heads
        self.store_heads = read_store_heads(self.store, heads.target, heads.threshold, self.static.split)
        self._check_store(self.store_heads)
        self.conditions = self._prepared(self.store_heads)
        self.static_heads = self.store_heads.ranking.top_mask(self.static.top)
        first = data.task.sample(data.task.order()[0])
        if first.forced is not None:
            raise UserError("task.teacher_forcing: an ablated model must choose its own tokens; set it to false")
        self.store_heads.refuse_shared([first.id])
        self.settings = {"llm": self.llm.identity.as_dict(), **data.describe(), **self._describe()}
        self._finished = frozenset(on_rank_zero(self.trainer, lambda: self.trials.open(self.settings)))

    def finished_batches(self) -> frozenset[int]:
        """Numbers of the batches whose trials an earlier run finished; the data module skips them."""
        return self._finished

    def _check_store(self, store_heads: StoreHeads) -> None:
        identity = self.llm.identity
        if not store_heads.identity.same_model(identity):
            differ = store_heads.identity.differences(identity)
            raise UserError(
                f"store {self.store} holds heads of {store_heads.identity}, but the llm is {identity}, "
                f"which differs in {differ}"
            )

    def _prepared(self, store_heads: StoreHeads) -> list[Condition]:
        if any(k < 0 for k in self.k):
            raise UserError(f"model.k: numbers of heads, 0 or more, not {self.k}")
        listed = [condition for condition in self.listed if not isinstance(condition, NoAblation)]
        conditions = [NoAblation(), *(AblateDynamic(k) for k in self.k if k), *listed]
        average = round(store_heads.average(self.static.count_empty))
        for condition in conditions:
            condition.prepare(TrainingHeads(store_heads.ranking, average))
        names = [condition.name for condition in conditions]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"model.conditions: '{min(twice)}' is listed twice")
        return conditions

    def _describe(self) -> dict[str, Any]:
        """What determines the trials, beside the prompts."""
        return {
            "store": self.store_heads.record,
            "conditions": {condition.name: condition.describe() for condition in self.conditions},
            "dynamic_heads": self.dynamic_heads.describe(),
            "operator": self.intervention.operator,
            "keep": self.intervention.keep,
            "static_top": self.static_heads.nonzero().flatten().tolist(),
        }

    def on_test_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()

    def test_step(self, batch: PromptBatch) -> None:
        """Generate one batch under every condition and write its trials."""
        if not batch.samples:
            return
        self.store_heads.refuse_shared([sample.id for sample in batch.samples])
        operator, keep = self.intervention.operator, self.intervention.keep
        found = generate_ablated(self.llm, batch.samples, self.conditions, self.dynamic_heads, operator, keep)
        trials = [
            ablation_trial(self.llm, batch.task, sample, condition.name, found.of(row, place), self.static_heads)
            for row, sample in enumerate(batch.samples)
            for place, condition in enumerate(self.conditions)
        ]
        self.trials.write(batch.number, trials)

    def on_test_epoch_end(self) -> None:
        """Metrics of all trials, on every process, once all are finished."""
        self.trainer.strategy.barrier("trials")
        self._trials = self.trials.read()
        names = [condition.name for condition in self.conditions]
        expected = len(self._data.task) * len(names)
        if len(self._trials) != expected:
            raise UserError(
                f"{self.trials.folder}: {len(self._trials)} of {expected} trials; run the same command again"
            )
        self.outcomes = Outcomes.of(self._trials, names)
        self.results = {**self.settings, **self._measured(self.outcomes)}
        for condition, estimates in self.results["metrics"]["all"].items():
            for metric in self.outcomes.metrics:
                self.log(f"{metric}/{condition}", estimates[metric]["value"], sync_dist=True)

    def _measured(self, outcomes: Outcomes) -> dict[str, Any]:
        groups = outcomes.groups()
        counted = {"all": True, "non_empty": False}
        found: dict[str, Any] = {
            "average_dynamic_heads": {name: self.store_heads.average(empty) for name, empty in counted.items()},
            "prompts": len(outcomes),
            "baseline_correct": int(outcomes.baseline_correct().sum()),
            "seed": self.bootstrap.seed,
            "resamples": self.bootstrap.resamples,
            "trials": str(self.trials.folder),
            "metrics": {name: outcomes.estimates(chosen, self.bootstrap) for name, chosen in groups.items()},
            "pairs": {name: outcomes.pairs(chosen, self.bootstrap) for name, chosen in groups.items()},
        }
        if self.heatmap is not None:
            found["heatmaps"] = outcomes.heatmaps(self.heatmap, self.bootstrap)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Every trial, its metrics as columns."""
        return [
            {**{key: value for key, value in trial.items() if key != "metrics"}, **trial["metrics"]}
            for trial in self._trials
        ]

    def table(self) -> Table:
        """Conditions with their intervals, and the difference of each from the reference."""
        return ablation_table(self.results, self.outcomes.metrics)

    def plots(self) -> "dict[str, Figure]":
        """Heatmaps of the first two metrics, and curves over k, where they were asked for."""
        plots = {}
        if self.heatmap is not None:
            note = comparison_text(self.results, self.outcomes.metrics)
            for metric in self.outcomes.metrics[:2]:
                plots[f"{metric}_by_length_and_depth"] = plot_heatmaps(self.outcomes, self.heatmap, metric, note)
        if self.k:
            plots["k_sweep"] = plot_sweep(self.results["metrics"], self.outcomes, self.k, self.static.top)
        return plots
