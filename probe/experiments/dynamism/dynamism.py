"""Claim 1 on a score store: dynamic heads change from step to step (Table 1, Figs. 1 and 5)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning import LightningModule
from torch import Tensor

from datamodules import Rows, Sequences
from extract.errors import UserError
from extract.heads import HeadGrid, top_k_mask
from extract.scores import REASONING_THRESHOLD, is_dynamic
from extract.utils import NonNegativeInt, PositiveInt, Resamples, Seed, Share
from probe.experiments.dynamism.example import example_sample
from probe.experiments.dynamism.metrics import DynamismMetric, DynamismSums, shuffle_steps
from probe.experiments.dynamism.plots import plot_frequencies, plot_steps
from probe.experiments.dynamism.static_sizes import StaticSizes, StaticSizeSums
from probe.experiments.dynamism.table import dynamism_records, dynamism_table
from probe.heads import HeadMeans, Ranking, never_dynamic_note, read_ranking
from probe.metrics import Estimate
from probe.results import TABLE_1, TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Dynamism(LightningModule):
    """Dynamism of heads: training samples rank the static heads, the metrics are those of the evaluation samples.

    Args:
        num_heads: Linked from the store.
        static_top: Size of the static set (the paper's 20).
        static_sizes: Further sizes, whose Jaccard index with the dynamic heads is reported beside each other.
        static: A published ranking (.json, .yaml, .tsv) instead of the training samples' mean scores.
        threshold: A head is dynamic from this reasoning score or contribution on (copy-paste scores are 0 or 1).
        top: Take this many best heads of each step as its dynamic heads instead, of those with a score above 0.
        sample: The sample to plot step by step; by default the first evaluation sample.
        resamples: Bootstrap resamples of the samples.
        seed: Of the bootstrap and of the shuffled baseline.

    """

    experiment = "dynamism"

    def __init__(
        self,
        num_heads: PositiveInt,
        static_top: PositiveInt = 20,
        static_sizes: Sequence[PositiveInt] = (20, 50, 100),
        static: str | None = None,
        threshold: Share = REASONING_THRESHOLD,
        top: PositiveInt | None = None,
        sample: NonNegativeInt | None = None,
        resamples: Resamples = 1000,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.num_heads, self.static_top, self.static_file = num_heads, static_top, static
        self.static_sizes = list(static_sizes)
        self.threshold, self.top, self.sample = threshold, top, sample
        self.resamples, self.seed = resamples, seed
        self.means = HeadMeans(num_heads)
        self.dynamic, self.shuffled = DynamismMetric(num_heads), DynamismMetric(num_heads)
        self.dynamic_sizes, self.shuffled_sizes = StaticSizes(self.static_sizes), StaticSizes(self.static_sizes)
        self.static_heads: Tensor | None = None
        self._sets = torch.empty(0)
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Check settings before anything is read."""
        del stage
        if not isinstance(getattr(self.trainer, "datamodule", None), Sequences):
            raise UserError("dynamism is measured on datamodules.Sequences: set data.class_path to it")
        self._check_sizes()
        samples = self._data.evaluation_samples()
        if self.sample is not None and self.sample not in samples:
            raise UserError(f"model.sample {self.sample} is not among the evaluation samples, {samples[:3]}, …")

    def _check_sizes(self) -> None:
        if not 1 <= self.static_top <= self.num_heads or (self.top is not None and self.top < 1):
            raise UserError(
                f"model: static_top {self.static_top} and top {self.top} must be at least 1, and static_top at most "
                f"{self.num_heads}, the number of heads"
            )
        ranked = self.num_heads
        if self.static_file is not None:
            ranked = int(np.isfinite(self._published().scores).sum())
        if any(not 1 <= size <= ranked for size in self.static_sizes):
            raise UserError(
                f"model.static_sizes {self.static_sizes}: each from 1 to {ranked}, the number of ranked heads"
            )

    @property
    def _data(self) -> Sequences:
        data: Sequences = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    @property
    def _grid(self) -> HeadGrid:
        return HeadGrid(self._data.identity.layers, self._data.identity.heads)

    def _published(self) -> Ranking:
        return read_ranking(str(self.static_file)).on_grid(self._grid.layers, self._grid.heads)

    def active(self, scores: Float[Tensor, "row head"]) -> Bool[Tensor, "row head"]:
        """The dynamic heads of each step."""
        if self.top is not None:
            return top_k_mask(scores, self.top) & (scores > 0)
        return is_dynamic(scores, self._data.target, self.threshold)

    def test_step(self, batch: Rows, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Training samples first, for the ranking; then the evaluation samples."""
        if dataloader_idx == 0:
            self.means.update(batch.scores)
            return
        if batch_idx == 0:  # on every process: computing the means synchronises them
            self.static_heads, *sets = (self._static(size) for size in (self.static_top, *self.static_sizes))
            self._sets = torch.stack(sets) if sets else self.static_heads[None][:0]
        assert self.static_heads is not None
        scored = batch.scores.isfinite().any(dim=1)
        active, sample = self.active(batch.scores[scored]), batch.sample[scored]
        shuffled = shuffle_steps(active, sample, self.seed)
        self.dynamic.update(active, sample, self.static_heads)
        self.dynamic_sizes.update(active, sample, self._sets)
        self.shuffled.update(shuffled, sample, self.static_heads)
        self.shuffled_sizes.update(shuffled, sample, self._sets)

    def _static(self, size: int) -> Bool[Tensor, "head"]:
        if self.static_file is None:
            return top_k_mask(self.means.compute(), size)
        return self._published().top_mask(size).to(self.device)

    def on_test_epoch_end(self) -> None:
        """All metrics with their intervals."""
        assert self.static_heads is not None
        sums: dict[str, DynamismSums] = {"dynamic": self.dynamic.compute(), "shuffled": self.shuffled.compute()}
        sizes = {"dynamic": self.dynamic_sizes.compute(), "shuffled": self.shuffled_sizes.compute()}
        data, number = self._data, self.sample
        steps = int(sums["dynamic"].sums[:, 0].sum())
        self.results = {
            "store": data.test_store.fingerprint,
            "llm": data.identity.as_dict(),
            "target": data.target,
            "dynamic_heads": "copy_paste" if data.target == "copy_paste" else self._definition(),
            "evaluation": data.test_path or data.evaluation,
            "split": data.split_record(),
            "samples": len(sums["dynamic"].sums),
            "steps": steps,
            "heads": self.num_heads,
            "static_sizes": self.static_sizes,
            "static_source": self.static_file or f"training samples of {data.store_path}",
            "static_heads": torch.nonzero(self.static_heads).flatten().tolist(),
            "seed": self.seed,
            "resamples": self.resamples,
            "paper": TABLE_1,
            "metrics": {kind: self._estimates(found) for kind, found in sums.items()},
            "static_size_metrics": {kind: self._estimates(found) for kind, found in sizes.items()},
            "frequency": (sums["dynamic"].counts.sum(0) / max(steps, 1)).tolist(),
            "example": example_sample(
                data.test_store, data.target, data.evaluation_samples()[0] if number is None else number
            ),
        }
        ever = int(self.results["metrics"]["dynamic"]["heads_ever"]["value"])
        self.results["note"] = never_dynamic_note((self.static_top, *self.static_sizes), ever, "evaluation")
        for record in self.records():
            self.log(f"{record['heads']}/{record['metric']}", record["value"], sync_dist=True)

    def _definition(self) -> str:
        target = self._data.target
        return f"{target} ≥ {self.threshold}" if self.top is None else f"top {self.top} by {target} score"

    def _estimates(self, sums: DynamismSums | StaticSizeSums) -> dict[str, dict[str, float | None]]:
        intervals = sums.intervals(self.resamples, self.seed)
        return {
            name: Estimate(value, *intervals.get(name, (None, None))).as_dict()
            for name, value in sums.metrics().items()
        }

    def records(self) -> list[dict[str, Any]]:
        """One row for each metric of the store and of its shuffled baseline."""
        return dynamism_records(self.results)

    def table(self) -> TextTable:
        """Table 1 of this store, beside its shuffled baseline and the paper's row."""
        return dynamism_table(self.results)

    def plots(self) -> "dict[str, Figure]":
        """Fig. 1 of one sample, and how often each head is dynamic."""
        found, example = self.results, self.results["example"]
        scores, names = np.array(example["scores"], dtype=np.float32), [*map(self._grid.name, example["heads"])]
        title = f"sample {example['sample']}: the ten heads of highest variance ({found['dynamic_heads']})"
        about = f"{found['steps']:,} steps of {found['samples']} samples; framed: static top {self.static_top}"
        frequency = np.array(found["frequency"])
        return {
            "heads_over_steps": plot_steps(scores, example["tokens"], names, title),
            "activation_frequency": plot_frequencies(frequency, found["static_heads"], self._grid, about),
        }
