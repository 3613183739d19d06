"""Claim 3 with probes instead of linear maps: a probe for the heads of each later step, all trained together."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Group
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from datamodules import OffsetRows, Rows
from extract.errors import UserError
from extract.scores import REASONING_THRESHOLD, Target
from extract.utils import PositiveFloat, PositiveInt, Repetitions, Share, ShareBelowOne, Width, without_autocast
from probe.metrics import (
    Bootstrap,
    EvaluatedRows,
    GatheredRows,
    OffsetEvaluation,
    best_threshold,
    has_score,
    wake_up_pairs,
    wake_up_threshold,
)
from probe.models.base import Probe
from probe.models.baselines import by_offset
from probe.models.classifier import ProbeClassifier
from probe.models.mlp import Activation
from probe.models.plots import plot_offsets
from probe.models.regressor import ProbeRegressor
from probe.models.training_record import TrainedOnRows
from probe.results import PLOTTED_METRICS, PREDICTORS, WAKE_UP_METRICS, offset_records, offset_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OffsetProbes(TrainedOnRows):
    """One probe for each offset k: classifiers of Eq. 1, or regressors of Eq. 2, from the same hidden states.

    They share batches, learning-rate schedule and selected epoch (both by the mean of their validation losses). Each
    has its own weights, gradient clipping and threshold.

    Args:
        in_features: Hidden size of the LLM, linked from the store.
        num_heads: Heads of the LLM, linked from the store.
        num_offsets: Largest k, linked from the data.
        target: The score, linked from the data.
        hidden: Widths of the hidden layers of each probe (A.5: 8192, 4096, 4096).
        dropout: After each hidden layer (A.5: 0.1).
        activation: Of the hidden layers; the paper names none.
        clip_norm: Largest norm of each probe's gradient (A.5: 1.0).
        top: Number of heads of top overlap and NDCG (regressors).
        wake_offsets: The k at which heads that wake up are evaluated, of those up to the largest k.
        threshold: Reasoning scores from here on make a head dynamic, for the heads that wake up (regressors).
        **kwargs: See `TrainedOnRows`.

    """

    experiment = "offset_probes"
    run_settings = (*TrainedOnRows.run_settings, "top")
    structure = (*TrainedOnRows.structure, "num_offsets", "target", "hidden", "activation")

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        num_offsets: Repetitions = 10,
        target: Target = "copy_paste",
        hidden: Sequence[Width] = (8192, 4096, 4096),
        dropout: ShareBelowOne = 0.1,
        activation: Activation = "relu",
        clip_norm: PositiveFloat = 1.0,
        top: PositiveInt = 5,
        wake_offsets: Sequence[PositiveInt] = (1, 2, 4, 8),
        threshold: Share = REASONING_THRESHOLD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.target, self.num_heads, self.num_offsets = target, num_heads, num_offsets
        self.clip_norm, self.top, self.threshold = clip_norm, top, threshold
        self.wake_offsets = [k for k in wake_offsets if k <= num_offsets]
        self.wake_thresholds: dict[int, dict[str, float]] = {}
        """Decision threshold of each predictor of the heads that wake up, by k, from the validation split."""
        kind = ProbeClassifier if target == "copy_paste" else ProbeRegressor
        self.probes = nn.ModuleList(
            [
                kind(in_features, num_heads, hidden=hidden, dropout=dropout, activation=activation)
                for _ in range(num_offsets + 1)
            ]
        )
        self.register_buffer("head_means", torch.zeros(num_offsets + 1, num_heads))
        self.register_buffer("static_thresholds", torch.full((num_offsets + 1,), 0.5))
        self.static_thresholds: Tensor
        self.gathered, self.tested = GatheredRows(), GatheredRows("step", "known")

    def setup(self, stage: str) -> None:
        """Check that the data holds the scores of later steps.

        Raises:
            UserError: another data module, another target, or a k of 0 at which heads should wake up.

        """
        super().setup(stage)
        if any(k < 1 for k in self.wake_offsets):
            raise UserError(f"model.wake_offsets {self.wake_offsets}: each at least 1")
        if not isinstance(self._rows(), OffsetRows):
            raise UserError("probes of later steps need datamodules.OffsetRows: set data.class_path to it")

    def _each(self) -> Iterator[Probe]:
        """The probes by k; a ModuleList's items are typed as plain modules."""
        return (cast(Probe, probe) for probe in self.probes)

    def forward(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row offset head"]:
        """Predicted scores of all heads at each k."""
        return torch.stack([probe.predict_scores(hidden) for probe in self._each()], dim=1)

    def loss(self, outputs: Float[Tensor, "row offset head"], scores: Tensor) -> Float[Tensor, "offset"]:
        """Each probe's loss over the rows whose sample has a step k later; 0 where none has."""
        losses = []
        for k, probe in enumerate(self._each()):
            known = has_score(scores[:, k])
            rows = outputs[known, k]
            losses.append(probe.loss(rows, scores[known, k]) if len(rows) else rows.sum().float())
        return torch.stack(losses)

    def _outputs(self, hidden: Tensor) -> Tensor:
        return torch.stack([probe(hidden) for probe in self._each()], dim=1)

    def training_step(self, batch: Rows) -> Tensor:
        """Sum of the losses: as the probes share no weight, each gets its own gradient."""
        loss = self.loss(self._outputs(batch.hidden), batch.scores)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss_step", loss.mean(), prog_bar=True)
        return loss.sum()

    def _report_clipping(self) -> None:
        """Report a setting of the Trainer that changes nothing here."""
        if self.trainer.gradient_clip_val is not None:
            rank_zero_info(
                "trainer.gradient_clip_val changes nothing here: each probe's gradient is clipped to "
                f"model.init_args.clip_norm, {self.clip_norm}"
            )

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip each probe's gradient separately."""
        del optimizer
        for probe in self.probes:
            clip_grad_norm_(probe.parameters(), self.clip_norm)

    def validation_step(self, batch: Rows) -> None:
        """Gather the outputs of one batch."""
        with without_autocast():
            outputs = self._outputs(batch.hidden)
        self.gathered.update(outputs.flatten(1), batch.scores.flatten(1), batch.sample)

    def test_step(self, batch: Rows) -> None:
        """As for validation, with what the baselines predict from."""
        with without_autocast():
            outputs = self._outputs(batch.hidden)
        self.tested.update(
            outputs.flatten(1), batch.scores.flatten(1), batch.sample, step=batch.step, known=batch.known
        )

    def _drain(self, gathered: GatheredRows) -> tuple[Tensor, ...]:
        """Outputs and scores [row, offset, head], then the other columns."""
        outputs, scores, *others = gathered.drain()
        shape = (len(outputs), self.num_offsets + 1, self.num_heads)
        return outputs.view(shape), scores.view(shape), *others

    def on_validation_epoch_end(self) -> None:
        """Losses, and the thresholds that the checkpoint keeps."""
        outputs, scores, _ = self._drain(self.gathered)
        losses = self.loss(outputs.to(self.device), scores.to(self.device))
        self.log("val/loss", losses.mean(), prog_bar=True, sync_dist=True)
        self.log_dict({f"val/loss/k{k:02d}": loss for k, loss in enumerate(losses)}, sync_dist=True)
        for k, probe in enumerate(self._each()):
            if isinstance(probe, ProbeClassifier):
                known = has_score(scores[:, k])
                labels = scores[known, k] > 0
                probe.threshold.fill_(best_threshold(torch.sigmoid(outputs[known, k]), labels))
                self.static_thresholds[k] = best_threshold(self.head_means[k].cpu().expand(labels.shape), labels)
        for k in self.wake_offsets:
            chosen = self._wake_threshold(self._predicted(outputs[:, k]), scores[:, 0], scores[:, k])
            self.wake_thresholds.setdefault(k, {})["probe"] = chosen

    def _predicted(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(outputs) if self.target == "copy_paste" else outputs

    def _wake_threshold(self, predicted: Tensor, current: Tensor, later: Tensor) -> float:
        return wake_up_threshold(predicted, wake_up_pairs(current, later, self.target, self.threshold))

    def on_fit_start(self) -> None:
        """Record the training data, and compute the baselines with their thresholds for heads that wake up."""
        super().on_fit_start()
        self._report_clipping()
        batches = self._rows().with_known("val")
        rows = batches.read(batches.rows)
        for k, (one, (later, known)) in enumerate(zip(self.baselines, by_offset(rows), strict=True)):
            if k in self.wake_offsets:
                for kind in one.kinds:
                    chosen = self._wake_threshold(one.predict(kind, rows.step, known), known, later)
                    self.wake_thresholds.setdefault(k, {})[kind] = chosen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the thresholds of heads that wake up, once a validation has chosen the probe's."""
        super().on_save_checkpoint(checkpoint)
        chosen = {k: thresholds for k, thresholds in self.wake_thresholds.items() if "probe" in thresholds}
        checkpoint["probe"]["wake_thresholds"] = chosen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them; a checkpoint of a version that had none evaluates no heads that wake up."""
        super().on_load_checkpoint(checkpoint)
        self.wake_thresholds = checkpoint.get("probe", {}).get("wake_thresholds", {})

    def on_test_epoch_end(self) -> None:
        """Metrics at each k of its probe and of the baselines: of all scores, and of the heads that wake up."""
        rows = EvaluatedRows(*self._drain(self.tested))
        bootstrap = Bootstrap(self.resamples, self.bootstrap_seed)
        evaluation = OffsetEvaluation(self.target, self.threshold, self.top, bootstrap)
        self.results = {
            **self.provenance(),
            "target": self.target,
            "samples": len(rows.sample.unique()),
            "resamples": self.resamples,
            "seed": self.bootstrap_seed,
            "offsets": [evaluation.of_scores(rows, k, self._of_scores(rows, k)) for k in range(self.num_offsets + 1)],
            "wake_ups": [evaluation.of_wake_ups(rows, k, self._of_wake_ups(rows, k)) for k in self.wake_thresholds],
        }
        for record in self.records():
            if not record["minus"]:
                name = f"test/{record['predicted']}/{record['kind']}/{record['metric']}/k{record['k']:02d}"
                self.log(name, record["value"], sync_dist=True)

    def _of_scores(self, rows: EvaluatedRows, k: int) -> Iterator[tuple[str, Tensor, float]]:
        """Predictions of all scores with the thresholds of classifiers."""
        probe, baselines = self.probes[k], self.baselines[k : k + 1]
        own = float(probe.threshold) if isinstance(probe, ProbeClassifier) else 0.5
        yield "probe", self._predicted(rows.outputs[:, k]), own
        yield "static", self.head_means[k].cpu().expand(rows.known.shape), float(self.static_thresholds[k])
        for one in baselines:
            known = rows.scores[:, 0] if k else rows.known
            for kind in one.kinds[1:]:
                yield kind, one.predict(kind, rows.step, known), one.thresholds.get(kind, 0.5)
        if k and not baselines:  # a checkpoint of a version that had no others
            yield "repeat", rows.scores[:, 0].nan_to_num(), 0.5

    def _of_wake_ups(self, rows: EvaluatedRows, k: int) -> Iterator[tuple[str, Tensor, float]]:
        """The same predictions with the thresholds of heads that wake up."""
        thresholds, one = self.wake_thresholds[k], self.baselines[k]
        yield "probe", self._predicted(rows.outputs[:, k]), thresholds["probe"]
        for kind in one.kinds:
            yield kind, one.predict(kind, rows.step, rows.scores[:, 0]), thresholds[kind]

    def records(self) -> list[dict[str, Any]]:
        """One row for each event, k, predictor (`kind`) and metric."""
        return offset_records(self.results)

    def table(self) -> Group:
        """The plotted metrics as numbers, and those of the heads that wake up."""
        return offset_tables(self.results)

    def plots(self) -> "dict[str, Figure]":
        """Metrics against k."""
        plots = {"probes_over_offsets": plot_offsets(self.results["offsets"], PREDICTORS, PLOTTED_METRICS[self.target])}
        if self.results["wake_ups"]:
            waking = plot_offsets(self.results["wake_ups"], PREDICTORS, WAKE_UP_METRICS[2:])
            plots["wake_ups_over_offsets"] = waking
        return plots
