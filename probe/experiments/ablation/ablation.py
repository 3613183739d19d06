"""Claim 2: the dynamic heads of a step cannot be replaced by others (Figs. 2, 3, 6 and 7)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from datamodules import Prompts
from extract.attention import Slots, slots_of
from extract.errors import UserError
from extract.generation import DynamicHeads, check_forcing, generate_ablated
from extract.llm import LLM
from extract.pipeline import LLMStage
from extract.tasks import PromptBatch
from extract.utils import NonNegativeInt, on_rank_zero, with_store_name
from probe.experiments.ablation.conditions import AblateDynamic, Condition
from probe.experiments.ablation.heatmap_grid import HeatmapGrid
from probe.experiments.ablation.outcomes import Outcomes
from probe.experiments.ablation.passes import Passes
from probe.experiments.ablation.plots import plot_heatmaps, plot_sweep
from probe.experiments.ablation.settings import Intervention, StaticSet
from probe.experiments.ablation.table import ablation_table, comparison_text
from probe.experiments.ablation.trial import ablation_trial
from probe.heads import StoreHeads, never_dynamic_note, read_store_heads
from probe.metrics import Bootstrap
from probe.results import Trial, Trials

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
        static: The static set, the training samples that it comes from, and the number of heads of other conditions.
        intervention: What ablation changes.
        trials: Folder of finished batches, and in it `matched` those of the second pass; the same command continues
            there. `{store}` in it is the name of the store's folder.
        heatmap: Cells of the heatmaps over context length and depth; null for none.
        bootstrap: For the intervals.
        slots: Prompts of a batch that are decoded together, each under all conditions; where some have ended the next
            ones take their places. `auto`: as many as memory holds; None: all. Trials do not depend on it, up to
            rounding.

    """

    experiment = "ablation"

    def __init__(
        self,
        llm: LLM | None = None,
        store: str = "stores/niah",
        conditions: list[Condition] | None = None,
        k: list[NonNegativeInt] | None = None,
        dynamic_heads: DynamicHeads = DynamicHeads(),  # noqa: B008 (frozen)
        static: StaticSet = StaticSet(),  # noqa: B008 (frozen)
        intervention: Intervention = Intervention(),  # noqa: B008 (frozen)
        trials: str = "runs/ablation/{store}/trials",
        heatmap: HeatmapGrid | None = None,
        bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
        slots: Slots = None,
    ) -> None:
        super().__init__(llm)
        self.store, self.k, self.listed = store, sorted(set(k or [])), conditions or []
        self.dynamic_heads, self.static, self.intervention = dynamic_heads, static, intervention
        trials = with_store_name(trials, store)
        self.trials, self.matched_trials = Trials(trials), Trials(Path(trials) / "matched")
        self.heatmap, self.bootstrap, self.slots = heatmap, bootstrap, slots
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
        first = data.task.sample(data.task.order()[0])
        if self.heatmap is not None:
            self.heatmap.check(first.fields)
        if data.task.force:
            check_forcing(self.llm.model)
        heads = self.dynamic_heads
        self.store_heads = read_store_heads(self.store, heads.target, heads.threshold, self.static.split)
        self._check_store(self.store_heads)
        self.passes = self._passes(self.store_heads)
        self.static_heads = self.store_heads.ranking.top_mask(self.static.top)
        if first.forced is not None:
            raise UserError("task.teacher_forcing: an ablated model must choose its own tokens; set it to false")
        self.store_heads.refuse_shared([first.id])
        self.settings = {"llm": self.llm.identity.as_dict(), **data.describe(), **self._describe()}
        self._finished = [self._open(self.trials, self.passes.first)]
        if self.passes.matches:
            whole = len(self._finished[0]) == data.batches
            self._finished.append(self._match() if whole else frozenset())

    def finished_by_pass(self) -> list[frozenset[int]]:
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
        if self.dynamic_heads.target == "reasoning":
            self.dynamic_heads.excluded.refuse_other(
                store_heads.excluded, f"store {self.store}", "model.init_args.dynamic_heads"
            )

    def _passes(self, store_heads: StoreHeads) -> Passes:
        sweep = [AblateDynamic(k) for k in self.k if k]
        return Passes([*sweep, *self.listed], self.static.n, store_heads)

    def _describe(self) -> dict[str, Any]:
        """What determines the trials, beside the prompts and the conditions."""
        return {
            "store": self.store_heads.record,
            "dynamic_heads": self.dynamic_heads.describe(),
            "operator": self.intervention.operator,
            "keep": self.intervention.keep,
            "static_top": self.static_heads.nonzero().flatten().tolist(),
        }

    def _open(self, trials: Trials, conditions: list[Condition]) -> frozenset[int]:
        """Begin or go on with the trials of some conditions."""
        settings = {**self.settings, "conditions": {one.name: one.describe() for one in conditions}}
        return frozenset(on_rank_zero(self.trainer, lambda: trials.open(settings)))

    def _match(self) -> frozenset[int]:
        """Measure the first pass, prepare the second, and open its trials."""
        self.passes.match(self._whole(self.trials, self.passes.first))
        return self._open(self.matched_trials, self.passes.second or [])

    def _whole(self, trials: Trials, conditions: list[Condition]) -> list[Trial]:
        """All trials of a pass, which must be complete."""
        found, expected = trials.read(), len(self._data.task) * len(conditions)
        if len(found) != expected:
            raise UserError(f"{trials.folder}: {len(found)} of {expected} trials; run the same command again")
        return found

    def on_test_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()

    def test_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Generate one batch under every condition of the pass and write its trials."""
        del batch_idx
        if dataloader_idx and self.passes.second is None:
            self._begin_second()
        passes = ((self.passes.first, self.trials), (self.passes.second or [], self.matched_trials))
        conditions, trials = passes[dataloader_idx]
        if batch.samples and conditions:
            self._run(batch, conditions, trials)

    def _begin_second(self) -> None:
        """Match the second pass, once every process has finished the first."""
        self.trainer.strategy.barrier("first pass")
        self._match()

    def _run(self, batch: PromptBatch, conditions: list[Condition], trials: Trials) -> None:
        self.store_heads.refuse_shared([sample.id for sample in batch.samples])
        operator, keep = self.intervention.operator, self.intervention.keep
        # Of each prompt its own keys and, under each condition, those of its last token and its answer.
        tokens = [len(sample.ids) + len(conditions) * (sample.budget + 1) for sample in batch.samples]
        slots = slots_of(self.slots, self.llm.model, tokens)
        opening = batch.task.opening(self.llm.tokenizer)
        found = generate_ablated(
            self.llm, batch.samples, conditions, self.dynamic_heads, operator, keep, opening, slots
        )
        written = [
            ablation_trial(self.llm, batch.task, sample, condition.name, found.of(row, place), self.static_heads)
            for row, sample in enumerate(batch.samples)
            for place, condition in enumerate(conditions)
        ]
        trials.write(batch.number, written)

    def on_test_epoch_end(self) -> None:
        """Metrics of all trials, on every process, once all are finished."""
        self.trainer.strategy.barrier("trials")
        self._trials = self._whole(self.trials, self.passes.first)
        if self.passes.second:
            self._trials += self._whole(self.matched_trials, self.passes.second)
        self.outcomes = Outcomes.of(self._trials, self.passes.members())
        self.results = {**self.settings, **self.passes.describe(), **self._measured(self.outcomes)}
        for condition, estimates in self.results["metrics"]["all"].items():
            for metric in self.outcomes.metrics:
                self.log(f"{metric}/{condition}", estimates[metric]["value"], sync_dist=True)

    def teardown(self, stage: str) -> None:
        """Let other runs write to the trials."""
        del stage
        self.trials.close()
        self.matched_trials.close()

    def _measured(self, outcomes: Outcomes) -> dict[str, Any]:
        groups, counts = outcomes.groups(), self.store_heads.counts
        counted = {"all": True, "non_empty": False}
        found: dict[str, Any] = {
            "average_dynamic_heads": {name: counts.average(empty) for name, empty in counted.items()},
            "prompts": len(outcomes),
            "baseline_correct": int(outcomes.baseline_correct().sum()),
            "seed": self.bootstrap.seed,
            "resamples": self.bootstrap.resamples,
            "trials": str(self.trials.folder),
            "metrics": {name: outcomes.estimates(chosen, self.bootstrap) for name, chosen in groups.items()},
            "pairs": {name: outcomes.pairs(chosen, self.bootstrap) for name, chosen in groups.items()},
        }
        sizes = [one["n"] for one in self.passes.describe()["conditions"].values() if "heads" in one and one["n"]]
        found["note"] = never_dynamic_note((self.static.top, *sizes), self.store_heads.ever, "training")
        if self.heatmap is not None:
            found["heatmaps"] = outcomes.heatmaps(self.heatmap, self.bootstrap)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Every trial, its metrics as columns."""
        nested = ("metrics", "ablated_by_step")
        return [
            {**{key: value for key, value in trial.items() if key not in nested}, **trial["metrics"]}
            for trial in self._trials
        ]

    def table(self) -> Group:
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
