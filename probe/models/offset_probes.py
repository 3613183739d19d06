"""Claim 3 beyond linear maps: a probe for the heads of each later step, trained side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from datamodules import OffsetRows, Rows
from extract.errors import UserError
from extract.scores import Target
from probe.metrics import KeptRows, Ranked, Regression, best_threshold
from probe.models.base import adam_on_plateau
from probe.models.classifier import ProbeClassifier
from probe.models.plots import plot_offsets
from probe.models.regressor import ProbeRegressor
from probe.models.training_record import TrainedOnRows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


KINDS = ("probe", "static", "repeat")
SHOWN = {"copy_paste": ("f1", "auprc"), "reasoning": ("r2_variance_weighted", "top_overlap")}
"""What is drawn and tabled against k."""


class OffsetProbes(TrainedOnRows):
    """One probe for each k: classifiers of Eq. 1, or regressors of Eq. 2, from the same hidden states.

    They share batches, the learning rate's schedule and the chosen epoch (both by the mean of their validation losses)
    and nothing else: each has its own weights, its own clipped gradient and its own threshold.

    Args:
        in_features, num_heads, num_offsets, target: Linked from the data; `num_offsets` is the largest k.
        hidden, dropout, lr, patience, factor: See `Probe`.
        clip_norm: Largest norm of each probe's gradient (A.5: 1.0).
        resamples: Bootstrap resamples of the test samples for 95 % intervals.
        seed: Of the bootstrap.
        top: Heads that count as a step's best (regressors).

    """

    experiment = "offset_probes"

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        num_offsets: int = 10,
        target: Target = "copy_paste",
        hidden: Sequence[int] = (8192, 4096, 4096),
        dropout: float = 0.1,
        lr: float = 3e-4,
        patience: int = 3,
        factor: float = 0.1,
        clip_norm: float = 1.0,
        resamples: int = 200,
        seed: int = 0,
        top: int = 5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["llm", "store", "resamples", "seed", "top"])
        self.target, self.num_heads, self.num_offsets = target, num_heads, num_offsets
        self.lr, self.patience, self.factor, self.clip_norm = lr, patience, factor, clip_norm
        self.resamples, self.bootstrap_seed, self.top = resamples, seed, top
        kind: Any = ProbeClassifier if target == "copy_paste" else ProbeRegressor
        self.probes = nn.ModuleList([kind(in_features, num_heads, hidden, dropout) for _ in range(num_offsets + 1)])
        self.register_buffer("head_means", torch.zeros(num_offsets + 1, num_heads))
        self.register_buffer("static_thresholds", torch.full((num_offsets + 1,), 0.5))
        self.static_thresholds: Tensor
        self.kept = KeptRows()
        self.results: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """The data must hold the scores of later steps."""
        super().setup(stage)
        if not isinstance(self._rows(), OffsetRows):
            raise UserError("probes of later steps learn from datamodules.OffsetRows: set data.class_path to it")

    def forward(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row offset head"]:
        """Predicted scores of all heads at each k."""
        return torch.stack([probe.predict_scores(hidden) for probe in self._each()], dim=1)

    def _each(self) -> Any:
        """The probes; a ModuleList's items are typed as plain modules."""
        return iter(self.probes)

    def loss(self, outputs: Float[Tensor, "row offset head"], scores: Tensor) -> Float[Tensor, "offset"]:
        """Each probe's loss over the rows whose sample goes on that far; 0 where none does."""
        losses = []
        for k, probe in enumerate(self._each()):
            known = scored(scores[:, k])
            rows = outputs[known, k]
            losses.append(probe.loss(rows, scores[known, k]) if len(rows) else rows.sum())
        return torch.stack(losses)

    def _outputs(self, hidden: Tensor) -> Tensor:
        return torch.stack([probe(hidden) for probe in self._each()], dim=1)

    def training_step(self, batch: Rows) -> Tensor:
        """Sum of the losses: the probes share no weight, so each gets its own gradient."""
        loss = self.loss(self._outputs(batch.hidden), batch.scores)
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss.mean(), prog_bar=True)
        return loss.sum()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip each probe's gradient on its own."""
        del optimizer
        for probe in self.probes:
            clip_grad_norm_(probe.parameters(), self.clip_norm)

    def configure_optimizers(self) -> Any:
        """One Adam for all, which is the same as one for each."""
        return adam_on_plateau(self, self.lr, self.patience, self.factor)

    def validation_step(self, batch: Rows) -> None:
        """Keep the outputs of one batch."""
        self.kept.update(self._outputs(batch.hidden).flatten(1), batch.scores.flatten(1), batch.sample)

    test_step = validation_step

    def _drain(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs and scores [row, offset, head], and sample numbers, on the CPU; the metric starts anew."""
        outputs, scores, sample = (x.cpu() for x in self.kept.compute())
        self.kept.reset()
        shape = (len(sample), self.num_offsets + 1, self.num_heads)
        return outputs.view(shape), scores.view(shape), sample

    def on_validation_epoch_end(self) -> None:
        """Losses, and the thresholds that the checkpoint will carry."""
        outputs, scores, _ = self._drain()
        losses = self.loss(outputs.to(self.device), scores.to(self.device))
        self.log("val/loss", losses.mean(), prog_bar=True, sync_dist=True)
        self.log_dict({f"val/loss/k{k:02d}": loss for k, loss in enumerate(losses)}, sync_dist=True)
        if self.target != "copy_paste":
            return
        for k, probe in enumerate(self._each()):
            known = scored(scores[:, k])
            labels = scores[known, k] > 0
            probe.threshold.fill_(best_threshold(torch.sigmoid(outputs[known, k]), labels))
            self.static_thresholds[k] = best_threshold(self._static(k, labels), labels)

    def _static(self, k: int, scores: Tensor) -> Tensor:
        return self.head_means[k].cpu().expand(scores.shape)

    def on_test_epoch_end(self) -> None:
        """The figures of each k: of its probe, of the static scores, and of the current step's scores repeated."""
        outputs, scores, sample = self._drain()
        rows = self._rows()
        self.results = {
            "llm": self.origin["llm"],
            "store": rows.store.fingerprint,
            "test_store": rows.test_store.fingerprint,
            "target": self.target,
            "split": rows.split_record(),
            "samples": len(sample.unique()),
            "resamples": self.resamples,
            "seed": self.bootstrap_seed,
            "offsets": [self._decide(k, outputs[:, k], scores, sample) for k in range(self.num_offsets + 1)],
        }
        for cell in self.records():
            self.log(f"test/{cell['kind']}/{cell['figure']}/k{cell['k']:02d}", cell["value"], sync_dist=True)

    def _decide(self, k: int, outputs: Tensor, scores: Tensor, sample: Tensor) -> dict[str, Any]:
        known = scored(scores[:, k]) & scored(scores[:, 0])
        truth, now, unit = scores[known, k], scores[known, 0], sample[known]
        evaluated = {"probe": outputs[known], "static": self._static(k, truth), "repeat": now.nan_to_num()}
        if k == 0:  # the current step's own scores are the truth
            del evaluated["repeat"]
        if self.target == "copy_paste":
            evaluated["probe"] = torch.sigmoid(evaluated["probe"])
        found = {kind: self._figures(k, kind, predicted, truth, unit) for kind, predicted in evaluated.items()}
        return {"k": k, "rows": int(known.sum()), **found}

    def _figures(self, k: int, kind: str, predicted: Tensor, truth: Tensor, sample: Tensor) -> dict[str, Any]:
        """Values with their intervals over samples."""
        if self.target == "copy_paste":
            probe: Any = self.probes[k]
            threshold = {"probe": probe.threshold, "static": self.static_thresholds[k]}.get(kind, 0.5)
            ranked = Ranked(predicted, truth > 0, sample)
            values = ranked.figures(float(threshold)).as_dict()
            bounds = ranked.intervals(float(threshold), self.resamples, self.bootstrap_seed)
        else:
            regression = Regression(predicted, truth, sample, self.top)
            values = regression.figures()
            bounds = regression.intervals(self.resamples, self.bootstrap_seed)
        return {
            name: {"value": value, "low": bounds[name][0], "high": bounds[name][1]} for name, value in values.items()
        }

    def records(self) -> list[dict[str, Any]]:
        """One row for each k, kind and figure."""
        return [
            {"k": offset["k"], "kind": kind, "figure": name, **cell, "rows": offset["rows"]}
            for offset in self.results["offsets"]
            for kind in KINDS
            for name, cell in offset.get(kind, {}).items()
        ]

    def table(self) -> Table:
        """What is drawn, as numbers."""
        found, names = self.results, SHOWN[self.target]
        out = Table(
            title=f"Probes of the heads k steps later ({self.target}): {found['samples']} held-out samples",
            caption="[95 % bootstrap interval over samples]; static: each head's training mean; repeat: the current "
            "step's true scores, taken for those of k steps later",
        )
        for header in ("k", "rows", *(f"{kind} {name}" for name in names for kind in KINDS)):
            out.add_column(header, justify="right")
        for offset in found["offsets"]:
            cells = [_cell(offset.get(kind, {}).get(name)) for name in names for kind in KINDS]
            out.add_row(str(offset["k"]), f"{offset['rows']:,}", *cells)
        return out

    def plots(self) -> "dict[str, Figure]":
        """The shown figures against k."""
        return {"probes_over_offsets": plot_offsets(self.results, KINDS, SHOWN[self.target])}


def scored(scores: Float[Tensor, "row head"]) -> Bool[Tensor, "row"]:
    """Rows that have a score of any head at this k: their sample goes on that far."""
    return scores.isfinite().any(dim=1)


def _cell(cell: dict[str, float] | None) -> str:
    return "" if cell is None else f"{cell['value']:.3f} [{cell['low']:.2f}, {cell['high']:.2f}]"
