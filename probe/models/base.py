"""What both probes share: the network, the optimiser, and the memory of what they were trained on."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from datamodules import Rows
from probe.metrics import KeptRows
from probe.models.mlp import MLP
from probe.models.training_record import TrainedOnRows


class Probe(TrainedOnRows):
    """Predict the retrieval score of every head from the final hidden state.

    Args:
        in_features, num_heads: Sizes, linked from the store.
        hidden: Widths of the hidden layers (A.5: 8192, 4096, 4096).
        dropout: After each hidden layer (A.5: 0.1).
        lr: Adam's learning rate (A.5: 3e-4).
        patience: Epochs without a better validation loss before the rate drops (A.5: 3).
        factor: By which it drops (PyTorch's default; the paper gives none).

    """

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
        self.kept = KeptRows()
        self.epoch_loss, self.epoch_count = torch.zeros(()), 0

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
        return adam_on_plateau(self, self.lr, self.patience, self.factor)


def adam_on_plateau(module: LightningModule, lr: float, patience: int, factor: float) -> dict[str, Any]:
    """Lightning's description of Adam with a learning rate that drops on a plateau of `val/loss` (A.5)."""
    # Fused: the same update in one pass over memory. Lightning cannot clip it under a gradient scaler.
    fused = module.device.type in ("cpu", "cuda") and module.trainer.precision != "16-mixed"
    optimizer = torch.optim.Adam(module.parameters(), lr=lr, fused=fused)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience, factor=factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
