"""Claim 2: are the dynamic heads of a step replaceable? (Figs. 2, 3, 6 and 7)."""

from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.table import Table

from datamodules import Prompts, Split
from extract.errors import UserError
from extract.generation import AblatedGeneration, DynamicHeads, generate_ablated
from extract.llm import LLM
from extract.pipeline import LLMStage
from extract.scores import REASONING_THRESHOLD, ExcludedKeys, Target
from extract.tasks import PromptBatch, Sample
from extract.utils import on_rank_zero
from probe.experiments.ablation.conditions import AblateDynamic, Condition, Known, NoAblation
from probe.experiments.ablation.heatmap_grid import Cells, cell_figures
from probe.experiments.ablation.outcomes import Outcomes, heads_of
from probe.experiments.ablation.plots import plot_grid, plot_sweep
from probe.experiments.ablation.table import outcome_table, pair_lines
from probe.heads import StoreHeads, read_store_heads
from probe.results import Trial, Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ablation(LLMStage):
    """Generate every prompt under every condition, and compare them.

    Args:
        llm: The frozen model (linked from the top-level `llm:`).
        store: Its training samples give the static ranking and n (linked from the top-level `store:`).
        conditions: What to ablate, one experiment each; unmasked generation always runs.
        k: Also ablate only the first k dynamic heads, for each of these numbers (Fig. 3); 0 is unmasked.
        target: What makes a head dynamic: `copy_paste` (Eq. 1) or `reasoning` (Eq. 2).
        threshold: Reasoning scores only: from here on a head is dynamic.
        sink, local: First and last tokens that Eq. 2 leaves out.
        operator: A ablated head's output is `zero`, or its `mean` over the prompt's positions.
        keep: Whose keys and values of a step later steps see: the `clean` pass's or the `masked` one's.
        split: Which samples of the store are training samples.
        count_empty: Whether steps without any dynamic head count in the average number n.
        static_top: Size of the static set that compensation is counted in (the paper's 20).
        trials: Folder of finished batches; the same command goes on with it.
        cells: Of the heatmaps over length and depth; null draws none.
        resamples: Of the bootstrap over prompts.
        seed: Of the bootstrap.

    """

    experiment = "ablation"

    def __init__(
        self,
        llm: LLM | None = None,
        store: str = "stores/niah",
        conditions: list[Condition] | None = None,
        k: list[int] | None = None,
        target: Target = "copy_paste",
        threshold: float = REASONING_THRESHOLD,
        sink: int = ExcludedKeys.sink,
        local: int = ExcludedKeys.local,
        operator: Literal["zero", "mean"] = "zero",
        keep: Literal["clean", "masked"] = "clean",
        split: Split = Split(),  # noqa: B008 (frozen)
        count_empty: bool = False,
        static_top: int = 20,
        trials: str = "runs/ablation/trials",
        cells: Cells | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(llm)
        self.store, self.split = store, split
        self.k = sorted(set(k or []))
        self.listed = conditions or []
        self.heads = DynamicHeads(target, threshold, sink, local)
        self.operator, self.keep = operator, keep
        self.count_empty, self.static_top = count_empty, static_top
        self.trials, self.cells = Trials(trials), cells
        self.resamples, self.seed = resamples, seed
        self.results: dict[str, Any] = {}

    @property
    def _data(self) -> Prompts:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Prompts):
            raise UserError("ablation runs on datamodules.Prompts: set data.class_path to it")
        return data

    def setup(self, stage: str) -> None:
        """Read the store, prepare the conditions, and learn which batches are done."""
        del stage
        data = self._data
        if self.cells is not None:
            self.cells.check()
        self.known = read_store_heads(self.store, self.heads.target, self.heads.threshold, self.split)
        self._check_store(self.known)
        self.conditions = self._prepared(self.known)
        static = self.known.ranking.top(self.static_top)
        self.static = torch.zeros(self.known.ranking.scores.size, dtype=torch.bool)
        self.static[static] = True
        first = data.task.sample(data.task.order()[0])
        if first.forced is not None:
            raise UserError("task.teacher_forcing: an ablated model must choose its own tokens; set it to false")
        self.known.refuse_shared([first.id])
        self.settings = {"llm": self.llm.identity.as_dict(), **data.describe(), **self._describe()}
        self._finished = frozenset(on_rank_zero(self.trainer, lambda: self.trials.open(self.settings)))

    def finished_batches(self) -> frozenset[int]:
        """Numbers of the batches whose trials an earlier run finished; the data module skips them."""
        return self._finished

    def _check_store(self, known: StoreHeads) -> None:
        identity = self.llm.identity
        if not known.identity.same_model(identity):
            raise UserError(f"store {self.store} holds heads of {known.identity}, but the llm is {identity}")

    def _prepared(self, known: StoreHeads) -> list[Condition]:
        if any(k < 0 for k in self.k):
            raise UserError(f"model.k: numbers of heads, 0 or more, not {self.k}")
        listed = [condition for condition in self.listed if not isinstance(condition, NoAblation)]
        conditions = [NoAblation(), *(AblateDynamic(k) for k in self.k if k), *listed]
        average = round(known.average(self.count_empty))
        identity = known.identity
        for condition in conditions:
            condition.prepare(Known(identity.layers, identity.heads, known.ranking, average))
        names = [condition.name for condition in conditions]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"model.conditions: '{min(twice)}' stands there twice")
        return conditions

    def _describe(self) -> dict[str, Any]:
        """What determines the trials, beside the prompts."""
        return {
            "store": self.known.record,
            "conditions": {condition.name: condition.describe() for condition in self.conditions},
            "dynamic_heads": self.heads.describe(),
            "operator": self.operator,
            "keep": self.keep,
            "static_top": self.static.nonzero().flatten().tolist(),
        }

    def on_test_start(self) -> None:
        """Put the model where the Trainer works."""
        self.place_llm()

    def test_step(self, batch: PromptBatch) -> None:
        """Generate one batch under every condition and keep it."""
        if not batch.samples:
            return
        self.known.refuse_shared([sample.id for sample in batch.samples])
        found = generate_ablated(self.llm, batch.samples, self.conditions, self.heads, self.operator, self.keep)
        trials = [
            self._trial(batch, sample, condition.name, found.of(row, place))
            for row, sample in enumerate(batch.samples)
            for place, condition in enumerate(self.conditions)
        ]
        self.trials.write(batch.number, trials)

    def _trial(self, batch: PromptBatch, sample: Sample, condition: str, generation: AblatedGeneration) -> Trial:
        tokens = generation.tokens.tolist()
        answer = str(self.llm.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return {
            "sample": sample.index,
            "id": sample.id,
            "condition": condition,
            "length": sample.fields["length"],
            "depth": sample.fields["depth"],
            "metrics": batch.task.grade(sample, answer),
            **heads_of(generation, self.static),
            "gold": sample.gold,
            "answer": answer,
        }

    def on_test_epoch_end(self) -> None:
        """Every process reads the trials of all, once all are done."""
        self.trainer.strategy.barrier("trials")
        self._trials = self.trials.read()
        names = [condition.name for condition in self.conditions]
        expected = len(self._data.task) * len(names)
        if len(self._trials) != expected:
            raise UserError(
                f"{self.trials.folder}: {len(self._trials)} of {expected} trials; run the same command again"
            )
        self.outcomes = Outcomes.of(self._trials, names)
        groups = self.outcomes.groups()
        average = {name: self.known.average(counted) for name, counted in (("all", True), ("non_empty", False))}
        self.results = {
            **self.settings,
            "average_dynamic_heads": average,
            "prompts": len(self.outcomes),
            "solved": int(groups["solved"].sum()),
            "seed": self.seed,
            "resamples": self.resamples,
            "trials": str(self.trials.folder),
            "figures": {name: self.outcomes.figures(rows, self.resamples, self.seed) for name, rows in groups.items()},
            "pairs": {name: self.outcomes.pairs(rows, self.resamples, self.seed) for name, rows in groups.items()},
        }
        if self.cells is not None:
            self.results["cells"] = cell_figures(self.outcomes, self.cells, self.resamples, self.seed)
        for condition, cells in self.results["figures"]["all"].items():
            for metric in self.outcomes.metrics:
                self.log(f"{metric}/{condition}", cells[metric]["value"], sync_dist=True)

    def records(self) -> list[dict[str, Any]]:
        """Every trial, its metrics as columns."""
        return [
            {**{key: value for key, value in trial.items() if key != "metrics"}, **trial["metrics"]}
            for trial in self._trials
        ]

    def table(self) -> Table:
        """Conditions with their intervals, and each against the dynamic one."""
        return outcome_table(self.results, self.outcomes)

    def plots(self) -> "dict[str, Figure]":
        """Heatmaps of the first two metrics where there are cells, and curves over k where there is one."""
        drawn = {}
        note = pair_lines(self.results, self.outcomes)
        if self.cells is not None:
            for metric in self.outcomes.metrics[:2]:
                drawn[f"{metric}_by_length_and_depth"] = plot_grid(self.outcomes, self.cells, metric, note)
        if self.k:
            drawn["k_sweep"] = plot_sweep(self.results["figures"], self.outcomes, self.k, self.static_top)
        return drawn
