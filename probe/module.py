"""What both probes share: the network, the optimiser, and the memory of what they were trained on."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules.rows import Rows, ScoreRows
from extract.errors import UserError
from extract.llm import LLMIdentity
from probe.mlp import MLP
from probe.rows_metric import KeptRows


class Probe(LightningModule):
    """Predict the retrieval score of every head from the final hidden state.

    Args:
        in_features, num_heads: Sizes, linked from the store.
        hidden: Widths of the hidden layers (A.5: 8192, 4096, 4096).
        dropout: After each hidden layer (A.5: 0.1).
        lr: Adam's learning rate (A.5: 3e-4).
        patience: Epochs without a better validation loss before the rate drops (A.5: 3).
        factor: By which it drops (PyTorch's default; the paper gives none).

    """

    target: str
    """The score it predicts: `copy_paste` or `reasoning`."""

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        hidden: Sequence[int] = (8192, 4096, 4096),
        dropout: float = 0.1,
        lr: float = 3e-4,
        patience: int = 3,
        factor: float = 0.1,
    ) -> None:
        super().__init__()
        self.lr, self.patience, self.factor = lr, patience, factor
        self.mlp = MLP(in_features, hidden, num_heads, dropout)
        self.register_buffer("head_means", torch.zeros(num_heads))
        self.head_means: Tensor
        self.kept = KeptRows()
        self.epoch_loss, self.epoch_count = torch.zeros(()), 0
        self.origin: dict[str, Any] = {}
        """What it was trained on (`llm`, `store`, `target`, `split`): set by `fit`, kept in checkpoints."""

    @abstractmethod
    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Training loss of a batch."""

    @abstractmethod
    def predict_scores(self, hidden: Tensor) -> Tensor:
        """Predicted scores of all heads in [0, 1], or near it."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Raw outputs of all heads."""
        output: Tensor = self.mlp(hidden)
        return output

    @property
    def llm(self) -> LLMIdentity:
        """The LLM it was trained for."""
        return LLMIdentity(**self.origin["llm"])

    def check_llm(self, identity: LLMIdentity) -> None:
        """Refuse hidden states of another LLM.

        Raises:
            UserError: the weights differ; the message names both.

        """
        if self.origin and not self.llm.same_model(identity):
            raise UserError(
                f"this probe was trained on {self.llm}; it says nothing about {identity}: train one for that model"
            )

    def setup(self, stage: str) -> None:
        """Check that the data holds what this probe predicts."""
        del stage
        rows = self._rows()
        if rows.target != self.target:
            raise UserError(f"data.target is {rows.target}, but {type(self).__name__} predicts {self.target}")

    def _rows(self) -> ScoreRows:
        rows = getattr(self.trainer, "datamodule", None)
        if not isinstance(rows, ScoreRows):
            raise UserError("a probe learns from datamodules.ScoreRows: set data.class_path to it")
        return rows

    def current_origin(self) -> dict[str, Any]:
        """What the attached data is."""
        rows = self._rows()
        return {
            "llm": rows.identity.as_dict(),
            "store": rows.store.fingerprint,
            "target": rows.target,
            "split": rows.split_record(),
            "seen": sorted(rows.split_ids("train") | rows.split_ids("val")),
        }

    def check_origin(self) -> None:
        """Refuse to be judged on another LLM's rows, or on rows of the trained store that were training rows.

        Raises:
            UserError: naming both sides.

        """
        rows = self._rows()
        self.check_llm(rows.identity)
        if rows.test_path is None and self.origin["store"] == rows.store.fingerprint:
            if self.origin["split"] != (here := rows.split_record()):
                raise UserError(
                    f"data.split {_split_text(here)} is not the one this probe was trained with "
                    f"({_split_text(self.origin['split'])}): test rows would be training rows"
                )
            return
        seen = set(self.origin["seen"]) & rows.split_ids("test")
        if seen:
            raise UserError(
                f"{len(seen)} of the test samples of {rows.test_path or rows.store_path} were training or validation "
                f"samples of this probe ({min(seen)}, …): extract others, by another seed or other questions"
            )

    def on_fit_start(self) -> None:
        """Remember the data, and each head's training mean: the static baseline."""
        if self.origin:
            self.check_origin()
        self.origin = self.current_origin()
        self.head_means.copy_(self._rows().head_means())

    def on_test_start(self) -> None:
        """Only a trained probe is judged, and only on rows that it has not seen."""
        if not self.origin:
            raise UserError("this probe is untrained: add --ckpt_path with a checkpoint of `lightning fit`")
        self.check_origin()

    def on_validation_start(self) -> None:
        """As for a test, when validation is the stage; within `fit` the rows are those just checked."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.on_test_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Class and origin in plain values, so that loading executes nothing."""
        kind = type(self)
        checkpoint["probe"] = {"class": f"{kind.__module__}.{kind.__qualname__}", "origin": self.origin}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the origin back."""
        self.origin = checkpoint.get("probe", {}).get("origin", {})

    def training_step(self, batch: Rows) -> Tensor:
        """Loss of one batch. Lightning's bookkeeping is asked only for the steps that it shows."""
        loss = self.loss(self(batch.hidden), batch.scores)
        self.epoch_loss += loss.detach() * len(batch.hidden)
        self.epoch_count += len(batch.hidden)
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's mean loss."""
        self.epoch_loss, self.epoch_count = torch.zeros((), device=self.device), 0

    def on_train_epoch_end(self) -> None:
        """The epoch's mean loss, over all processes."""
        self.log("train/loss_epoch", self.epoch_loss / self.epoch_count, prog_bar=True, sync_dist=True)

    def validation_step(self, batch: Rows) -> None:
        """Keep the outputs of one batch; a process without any keeps an empty one."""
        self.kept.update(self(batch.hidden), batch.scores, batch.sample)

    test_step = validation_step

    def drain(self) -> tuple[Tensor, Tensor, Tensor]:
        """All kept rows on the CPU; the metric starts anew."""
        outputs, scores, sample = (x.cpu() for x in self.kept.compute())
        self.kept.reset()
        return outputs, scores, sample

    def configure_optimizers(self) -> Any:
        """Adam, and a rate that drops on a plateau of the validation loss (A.5)."""
        # Fused: the same update in one pass over memory. Lightning cannot clip it under a gradient scaler.
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=fused)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=self.patience, factor=self.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


def _split_text(record: dict[str, Any]) -> str:
    names = ("seed", "limit", "offset")
    return f"by {record['by']} {record['fractions']}, " + ", ".join(f"{name} {record[name]}" for name in names)
