"""Learned head weights of attribution: static ones, and ones that depend on the hidden state."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from extract.errors import UserError
from extract.store import shared_names
from extract.utils import NonNegativeFloat, PositiveInt, Width, software, without_autocast
from probe.attribution.learned.batches import AblationEffects, EffectBatch, TrainingAnswer
from probe.attribution.learned.effects import Features
from probe.attribution.learned.weights_card import head_weights_card
from probe.attribution.metrics import pearson, rank_agreement
from probe.models import TrainedModule, load_trained


class HeadWeights(TrainedModule):
    """Static head weights, as AT2 has them: a source's score for a token is `Σ_h w_h · a[t, h, s]`.

    The weights maximise Pearson's r, over the random ablations of a training answer, between the log-probability and
    the sum of the kept sources' scores; the loss is the mean of `1 - r` over answers (or over tokens, by `level`).
    They begin equal, as the mean over heads. Source: Cohen-Wang et al. (2025), "Learning to Attribute with Attention",
    which has sentences of the answer in place of whole answers, and the logit of their probability.

    Args:
        in_features: Hidden size of the LLM, linked from the data.
        num_heads: Heads of the LLM, linked from the data.
        features: What is weighted: each head's `attention` on a source, its logit `contribution`, or `both`, each with
            its own weight (AT2: attention).
        level: Whose log-probability is predicted: the whole `answer`'s, or each `token`'s.
        **kwargs: See `TrainedModule`.

    """

    structure = (*TrainedModule.structure, "features")
    scale: Tensor
    """Buffer: root mean square deviation of each head's features over an answer's runs; weights are in units of it."""

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        features: Features = "attention",
        level: Literal["answer", "token"] = "answer",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features: Features = features
        self.level, self.in_features = level, in_features
        self.count = 2 * num_heads if features == "both" else num_heads
        self.weight = nn.Parameter(torch.ones(self.count))
        self.register_buffer("scale", torch.ones(self.count))

    def standardised(self, hidden: Float[Tensor, "token hidden"]) -> Float[Tensor, "token head"]:
        """Weights of features of unit deviation."""
        return self.weight.expand(len(hidden), -1)

    def forward(self, hidden: Float[Tensor, "token hidden"]) -> Float[Tensor, "token head"]:
        """Weight of each head at each token."""
        return self.standardised(hidden) / self.scale

    def penalty(self) -> Float[Tensor, ""]:
        """What the loss adds for large weights: nothing."""
        return self.weight.new_zeros(())

    def predictions(
        self, batch: EffectBatch, level: Literal["answer", "token"]
    ) -> tuple[Float[Tensor, "row run"], Float[Tensor, "row run"], Bool[Tensor, "row run"]]:
        """Predicted and true log-probability of each answer or token in each run, and which runs it has."""
        predicted, true = torch.einsum("th,trh->tr", self(batch.hidden), batch.kept), batch.log_probs
        if level == "token":
            return predicted, true, batch.known[batch.answer]
        zeros = torch.zeros(batch.known.shape, dtype=predicted.dtype, device=predicted.device)
        return zeros.index_add(0, batch.answer, predicted), zeros.index_add(0, batch.answer, true), batch.known

    def loss(self, batch: EffectBatch) -> tuple[Float[Tensor, ""], int]:
        """Mean of `1 - r` over the answers or tokens whose log-probability varies, and their number."""
        found = pearson(*self.predictions(batch, self.level))
        known = found.isfinite()
        return torch.where(known, 1 - found, 0).sum() / known.sum().clamp(min=1), int(known.sum())

    def training_step(self, batch: EffectBatch) -> Tensor:
        """Loss of one batch."""
        with without_autocast():
            loss, rows = self.loss(batch)
            loss = loss + self.penalty()
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=rows, sync_dist=True)
        return loss

    def validation_step(self, batch: EffectBatch | None) -> None:
        """Loss and linear datamodeling score of one batch of answers, which no weight was trained on."""
        if batch is None:  # a process without any
            self._log_validation("val/loss", 0.0, 0)
            self._log_validation("val/lds", 0.0, 0)
            return
        with without_autocast():
            loss, rows = self.loss(batch)
            predicted, true, known = self.predictions(batch, "answer")
        self._log_validation("val/loss", loss, rows)
        scored = zip(predicted.cpu(), true.cpu(), known.cpu(), strict=True)
        lds = torch.tensor([rank_agreement(x[runs], y[runs]) for x, y, runs in scored])
        self._log_validation(
            "val/lds", lds.nan_to_num().sum() / max(1, int(lds.isfinite().sum())), int(lds.isfinite().sum())
        )

    def _log_validation(self, name: str, value: Tensor | float, rows: int) -> None:
        self.log(name, value, prog_bar=True, on_epoch=True, batch_size=rows, sync_dist=True)

    def setup(self, stage: str) -> None:
        """Check the data.

        Raises:
            UserError: another data module, or the stage is `test`.

        """
        self._data()
        if stage == "test":
            raise UserError(
                "head weights are evaluated beside other methods: lightning test -c configs/attribution.yaml with "
                "probe.attribution.LearnedHeads in model.init_args.methods"
            )

    def _data(self) -> AblationEffects:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, AblationEffects):
            raise UserError("head weights are trained on probe.AblationEffects: set data.class_path to it")
        return data

    def _check_held_out(self) -> None:
        """Refuse validation answers that the weights were trained on."""
        data, record = self._data(), self.training_record
        self.check_llm(data.identity)
        if record["store"] == data.fingerprint and record["split"] == data.split_record():
            return
        if shared := shared_names([{one} for one in data.part_ids("val")], self.training_ids):
            raise UserError(
                f"{len(shared)} of the validation answers are training answers of these weights ({shared[0]}, …): "
                "take the stores and data.split that they were trained with, or other questions"
            )

    def on_fit_start(self) -> None:
        """Record the training data, and standardise the features of weights that begin."""
        data, former = self._data(), self.training_record
        if former:
            self._check_held_out()
        else:
            self.begin(data.batches("train").answers)
        self.training_record = {
            "llm": data.identity.as_dict(),
            "store": data.fingerprint,
            "target": "log_probability",
            "split": data.split_record(),
            "software": software(),
            "seen": sorted({*data.part_ids("train"), *data.part_ids("val"), *former.get("seen", ())}),
        }

    def model_card(self, command: str, file: str) -> str:
        """Its model card."""
        return head_weights_card(type(self).__name__, self.features, self.training_record, command, file)

    def on_validation_start(self) -> None:
        """Check that the weights are trained and the answers held out, when validation is the stage."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            return
        if not self.training_record:
            raise UserError("these head weights are untrained: add --ckpt_path with a checkpoint of `lightning fit`")
        self._check_held_out()

    @torch.no_grad()
    def begin(self, answers: Iterable[TrainingAnswer]) -> None:
        """Set the scale of the features, and weights that are the mean over heads."""
        self.scale.copy_(feature_scale(answers))
        self.weight.copy_(self.scale / self.scale.square().mean().sqrt())

    def scores(
        self, hidden: Float[Tensor, "token hidden"], features: Float[Tensor, "token head source"]
    ) -> Float[Tensor, "token source"]:
        """Score of each source for each token."""
        return torch.einsum("th,ths->ts", self(hidden), features)


class DynamicHeadWeights(HeadWeights):
    """Head weights that depend on the hidden state: static ones plus a map of low rank, `w + U V x`.

    `x` is the standardised final hidden state of the query that chose the token. U begins at zero, so that training
    begins at the static weights.

    Args:
        in_features: Hidden size of the LLM, linked from the data.
        num_heads: Heads of the LLM, linked from the data.
        rank: Of the map.
        static: Checkpoint of static weights to begin at, trained on the same answers; null: the mean over heads.
        decay: Weight of `|U|² + |V|²` in the loss.
        **kwargs: See `HeadWeights`.

    """

    structure = (*HeadWeights.structure, "rank")

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        rank: Width = 8,
        static: str | None = None,
        decay: NonNegativeFloat = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_heads, **kwargs)
        self.static, self.decay = static, decay
        self.down = nn.Parameter(torch.randn(in_features, rank) / in_features**0.5)
        self.up = nn.Parameter(torch.zeros(rank, self.count))
        self.register_buffer("hidden_mean", torch.zeros(in_features))
        self.register_buffer("hidden_deviation", torch.ones(in_features))
        self.hidden_mean: Tensor
        self.hidden_deviation: Tensor

    def standardised(self, hidden: Float[Tensor, "token hidden"]) -> Float[Tensor, "token head"]:
        """Weights of features of unit deviation."""
        x = (hidden - self.hidden_mean) / self.hidden_deviation
        return self.weight + x @ self.down @ self.up

    def penalty(self) -> Float[Tensor, ""]:
        """Squared size of the map, times `decay`."""
        return self.decay * (self.up.square().sum() + self.down.square().sum())

    @torch.no_grad()
    def begin(self, answers: Iterable[TrainingAnswer]) -> None:
        """Set the scales of features and hidden states; begin at the static weights."""
        answers = list(answers)
        super().begin(answers)
        hidden = torch.cat([one.hidden for one in answers]).double()
        self.hidden_mean.copy_(hidden.mean(dim=0))
        self.hidden_deviation.copy_(hidden.std(dim=0, correction=0).clamp(min=1e-6))
        if self.static is not None:
            fitted = load_trained(HeadWeights, self.static, self.device, self.data_llm())
            self._check_static(fitted)
            self.weight.copy_(fitted.weight / fitted.scale * self.scale)

    def _check_static(self, fitted: HeadWeights) -> None:
        if isinstance(fitted, DynamicHeadWeights) or fitted.features != self.features:
            raise UserError(
                f"model.static {self.static}: it holds {type(fitted).__name__} of {fitted.features}; "
                f"static weights of {self.features} are needed"
            )
        data, record = self._data(), fitted.training_record
        if (record["store"], record["split"]) != (data.fingerprint, data.split_record()):
            raise UserError(
                f"model.static {self.static}: it was trained on other answers; fit static weights on the same stores "
                "with the same data.split, or validation answers would be training answers"
            )


def feature_scale(answers: Iterable[TrainingAnswer]) -> Float[Tensor, "head"]:
    """Root mean square deviation of each head's sum over an answer's tokens, over the runs of each answer.

    Heads without any deviation have 1.
    """
    total, runs = torch.zeros(()), 0
    for one in answers:
        sums = one.kept().sum(dim=0).double()
        total = total + (sums - sums.mean(dim=0)).square().sum(dim=0)
        runs += len(sums)
    found = (total / max(1, runs)).sqrt()
    return torch.where(found > 0, found, 1.0).float()
