"""Claim 1 on a score store: do the heads that score change from step to step? (Table 1, Figs. 1 and 5)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning import LightningModule
from rich.table import Table
from torch import Tensor

from datamodules import Rows, Sequences
from extract.errors import UserError
from extract.llm import LLM
from extract.scores import REASONING_THRESHOLD, is_dynamic
from probe.experiments.dynamism.metrics import FIGURES, Turnover, TurnoverSums, shuffle_steps, top_heads
from probe.experiments.dynamism.plots import most_varying, plot_frequencies, plot_steps
from probe.heads import HeadMeans, Ranking, read_ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAPER = {
    "llama3.1-8b": (0.3512, 0.2793, 3.8154),
    "llama3.2-3b": (0.3126, 0.3188, 3.0083),
    "qwen3-8b": (0.4611, 0.3668, 4.1038),
    "llama2-13b": (0.2077, 0.4979, 4.8973),
    "phi4-mini": (0.1845, 0.5056, 3.5532),
}
"""Table 1: Jaccard with static, adjacent Jaccard, entropy."""
PUBLISHED = ("jaccard_static", "jaccard_adjacent", "entropy")


class Dynamism(LightningModule):
    """How dynamic heads change: training samples rank the static heads, the evaluation samples are measured.

    Args:
        num_heads: Linked from the store.
        static_top: Size of the static set (the paper's 20).
        static: A published ranking (.json, .yaml, .tsv) instead of the training samples' means.
        threshold: A reasoning score from here on makes a head dynamic (copy-paste scores are 0 or 1).
        top: Take this many best heads of each step as its dynamic heads instead: of those that score at all.
        sample: The sample drawn step by step; by default the first evaluation one.
        resamples: Of the bootstrap over samples.
        seed: Of the bootstrap and of the shuffled baseline.

    """

    experiment = "dynamism"

    def __init__(
        self,
        num_heads: int,
        static_top: int = 20,
        static: str | None = None,
        threshold: float = REASONING_THRESHOLD,
        top: int | None = None,
        sample: int | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.num_heads, self.static_top, self.static_file = num_heads, static_top, static
        self.threshold, self.top, self.sample = threshold, top, sample
        self.resamples, self.seed = resamples, seed
        self.means = HeadMeans(num_heads)
        self.dynamic, self.shuffled = Turnover(num_heads), Turnover(num_heads)
        self.static_heads: Tensor | None = None
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Check settings before anything is read."""
        del stage
        self._check_data()
        if not 1 <= self.static_top <= self.num_heads or (self.top is not None and self.top < 1):
            raise UserError(
                f"model: static_top {self.static_top} and top {self.top} must be at least 1, and static_top at most "
                f"{self.num_heads}, the number of heads"
            )
        if self.static_file is not None:
            self._published()
        samples = self._data.evaluation_samples()
        if self.sample is not None and self.sample not in samples:
            raise UserError(f"model.sample {self.sample} is not among the evaluation samples, {samples[:3]}, …")

    def _check_data(self) -> None:
        if not isinstance(getattr(self.trainer, "datamodule", None), Sequences):
            raise UserError("dynamism is measured on datamodules.Sequences: set data.class_path to it")

    @property
    def _data(self) -> Sequences:
        data: Sequences = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def _published(self) -> Ranking:
        identity = self._data.identity
        return read_ranking(str(self.static_file)).on_grid(identity.layers, identity.heads)

    def active(self, scores: Float[Tensor, "row head"]) -> Bool[Tensor, "row head"]:
        """The dynamic heads of each step."""
        if self.top is not None:
            known = scores.nan_to_num(nan=-1.0)
            best = known.topk(min(self.top, self.num_heads), dim=1)
            return torch.zeros_like(known, dtype=torch.bool).scatter_(1, best.indices, best.values > 0)
        return is_dynamic(scores, self._data.target, self.threshold)

    def test_step(self, batch: Rows, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Training samples first, for the ranking; then the evaluation ones."""
        if dataloader_idx == 0:
            self.means.update(batch.scores)
            return
        if batch_idx == 0:  # on every process, so that they meet here
            self.static_heads = self._static()
        assert self.static_heads is not None
        scored = batch.scores.isfinite().any(dim=1)
        active, sample = self.active(batch.scores[scored]), batch.sample[scored]
        self.dynamic.update(active, sample, self.static_heads)
        self.shuffled.update(shuffle_steps(active, sample, self.seed), sample, self.static_heads)

    def _static(self) -> Tensor:
        if self.static_file is None:
            return top_heads(self.means.compute(), self.static_top)
        chosen = torch.zeros(self.num_heads, dtype=torch.bool, device=self.device)
        chosen[self._published().top(self.static_top)] = True
        return chosen

    def on_test_epoch_end(self) -> None:
        """All figures with their intervals."""
        assert self.static_heads is not None
        sums: dict[str, TurnoverSums] = {"dynamic": self.dynamic.compute(), "shuffled": self.shuffled.compute()}
        data = self._data
        self.results = {
            "store": data.test_store.fingerprint,
            "llm": data.identity.as_dict(),
            "target": data.target,
            "dynamic_heads": "copy_paste" if data.target == "copy_paste" else self._definition(),
            "evaluation": data.test_path or data.evaluation,
            "split": data.split_record(),
            "samples": len(sums["dynamic"].sums),
            "steps": int(sums["dynamic"].sums[:, 0].sum()),
            "static_source": self.static_file or f"training samples of {data.store_path}",
            "static_heads": torch.nonzero(self.static_heads).flatten().tolist(),
            "seed": self.seed,
            "resamples": self.resamples,
            "paper": {name: dict(zip(PUBLISHED, row, strict=True)) for name, row in PAPER.items()},
            "figures": {name: self._figures(found) for name, found in sums.items()},
        }
        self.frequency = sums["dynamic"].counts.sum(0) / max(self.results["steps"], 1)
        self.results |= {"frequency": self.frequency.tolist(), "example": self._example()}
        for name, figures in self.results["figures"].items():
            for figure, cell in figures.items():
                self.log(f"{name}/{figure}", cell["value"], sync_dist=True)

    def _definition(self) -> str:
        return f"reasoning ≥ {self.threshold}" if self.top is None else f"top {self.top} by reasoning score"

    def _figures(self, sums: TurnoverSums) -> dict[str, dict[str, float | None]]:
        intervals = sums.intervals(self.resamples, self.seed)
        cells: dict[str, dict[str, float | None]] = {}
        for name, value in sums.figures().items():
            low, high = intervals.get(name, (None, None))
            cells[name] = {"value": value, "low": low, "high": high}
        return cells

    def records(self) -> list[dict[str, Any]]:
        """One row for each figure of the store and of its shuffled baseline."""
        keys = {name: self.results[name] for name in ("samples", "steps", "seed")}
        return [
            {"heads": kind, "figure": name, **cell, **keys}
            for kind, figures in self.results["figures"].items()
            for name, cell in figures.items()
        ]

    def table(self) -> Table:
        """Table 1 of this store, beside its shuffled baseline and the paper's llama3.1-8b."""
        found = self.results
        caption = (
            f"dynamic heads: {found['dynamic_heads']}; static: top {self.static_top} of {found['static_source']}; "
            "[95 % bootstrap interval over samples]; shuffled: each head's activations permuted "
            "over the steps of a sample"
        )
        title = f"Turnover of heads: {found['steps']:,} steps of {found['samples']} samples ({found['evaluation']})"
        out = Table(title=title, caption=caption)
        for header in ("", "here", "shuffled", "paper, llama3.1-8b"):
            out.add_column(header, justify="right" if header else "left")
        for name in FIGURES:
            published = found["paper"]["llama3.1-8b"].get(name)
            cells = [_cell(found["figures"][kind][name]) for kind in ("dynamic", "shuffled")]
            out.add_row(name, *cells, "" if published is None else f"{published:.4f}")
        return out

    def plots(self) -> "dict[str, Figure]":
        """Fig. 1 of one sample, and the map of frequencies."""
        per_layer = self._data.identity.heads
        example = self.results["example"]
        scores, tokens = np.array(example["scores"], dtype=np.float32), example["tokens"]
        title = f"sample {example['sample']}: the ten heads of highest variance ({self.results['dynamic_heads']})"
        steps, samples = self.results["steps"], self.results["samples"]
        frequency = f"{steps:,} steps of {samples} samples; framed: static top {self.static_top}"
        return {
            "heads_over_steps": plot_steps(scores, tokens, example["heads"], per_layer, title),
            "activation_frequency": plot_frequencies(
                self.frequency, self.results["static_heads"], per_layer, frequency
            ),
        }

    def _example(self) -> dict[str, Any]:
        """Fig. 1 of one evaluation sample: its most varying heads, and their scores [step, head], NaN as None."""
        number = self._data.evaluation_samples()[0] if self.sample is None else self.sample
        scores, tokens = self._steps(number)
        heads = most_varying(scores, 10)
        shown = [[round(float(x), 4) if np.isfinite(x) else None for x in row] for row in scores[:, heads]]
        return {"sample": number, "tokens": tokens, "heads": heads, "scores": shown}

    def _steps(self, number: int) -> tuple[Any, list[str]]:
        """Scores and token texts of a evaluation sample's steps."""
        store = self._data.test_store
        rows = np.flatnonzero(store.scalars("sample") == number)
        ids = store.scalars("token")[rows].tolist()
        scores = self._data._columns["test"].scores.take(rows).astype(np.float32)
        try:
            tokenizer = LLM(self._data.identity.name).tokenizer
            tokens = [str(tokenizer.decode([token])) for token in ids]
        except UserError:  # the model is not here: numbers will do
            tokens = [str(token) for token in ids]
        return scores, tokens


def _cell(cell: dict[str, float | None]) -> str:
    value = f"{cell['value']:.4f}"
    return value if cell["low"] is None else f"{value} [{cell['low']:.3f}, {cell['high']:.3f}]"
