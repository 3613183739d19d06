"""Base class of probes: an MLP from the hidden state to a score of every head."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from datamodules import Rows
from extract.utils import PositiveInt, ShareBelowOne, Width, without_autocast
from probe.metrics import GatheredRows
from probe.models.mlp import MLP, Activation
from probe.models.training_record import TrainedOnRows
from probe.results import TextTable, probe_records, probe_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Probe(TrainedOnRows):
    """Predict the retrieval score of every head from the final hidden state.

    Args:
        in_features: Hidden size of the LLM, linked from the store.
        num_heads: Heads of the LLM, linked from the store.
        hidden: Widths of the hidden layers (A.5: 8192, 4096, 4096).
        dropout: After each hidden layer (A.5: 0.1).
        activation: Of the hidden layers; the paper names none.
        **kwargs: See `TrainedOnRows`.

    """

    experiment: str
    """Name of its test in results.json and the report."""
    structure = (*TrainedOnRows.structure, "hidden", "activation")

    def __init__(
        self,
        in_features: PositiveInt,
        num_heads: PositiveInt,
        hidden: Sequence[Width] = (8192, 4096, 4096),
        dropout: ShareBelowOne = 0.1,
        activation: Activation = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlp = MLP(in_features, hidden, num_heads, dropout, activation)
        self.register_buffer("head_means", torch.zeros(num_heads))
        self.gathered, self.tested = GatheredRows(), GatheredRows("step", "known")
        self._epoch_loss, self._epoch_rows = torch.zeros(()), 0

    @abstractmethod
    def loss(self, outputs: Tensor, scores: Tensor) -> Tensor:
        """Training loss of a batch."""

    @abstractmethod
    def predict_scores(self, hidden: Tensor) -> Tensor:
        """Predicted scores of all heads in [0, 1], or near it."""

    def forward(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row head"]:
        """Raw outputs of all heads."""
        output: Tensor = self.mlp(hidden)
        return output

    def training_step(self, batch: Rows) -> Tensor:
        """Loss of one batch. It is logged only at the steps that Lightning records: `self.log` is slow."""
        loss = self.loss(self(batch.hidden), batch.scores)
        self._epoch_loss += loss.detach() * len(batch.hidden)
        self._epoch_rows += len(batch.hidden)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss_step", loss, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Reset the epoch's mean loss."""
        super().on_train_epoch_start()
        self._epoch_loss, self._epoch_rows = torch.zeros((), device=self.device), 0

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss over all processes."""
        super().on_train_epoch_end()
        self.log("train/loss_epoch", self._epoch_loss / self._epoch_rows, prog_bar=True, sync_dist=True)

    def evaluated_outputs(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row output"]:
        """What evaluation gathers of each row."""
        output: Tensor = self(hidden)
        return output

    def validation_step(self, batch: Rows) -> None:
        """Gather the outputs of one batch; a process without any gathers an empty one."""
        with without_autocast():
            outputs = self.evaluated_outputs(batch.hidden)
        self.gathered.update(outputs, batch.scores, batch.sample)

    def test_step(self, batch: Rows) -> None:
        """As for validation, with what the baselines predict from."""
        with without_autocast():
            outputs = self.evaluated_outputs(batch.hidden)
        self.tested.update(outputs, batch.scores, batch.sample, step=batch.step, known=batch.known)

    def baseline_scores(self, scores: Tensor, step: Tensor, known: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and predicted scores of each baseline that has no hidden state, on the CPU."""
        yield "static", self.head_means.cpu().expand(scores.shape)
        for one in self.baselines:
            yield from ((kind, one.predict(kind, step, known)) for kind in one.kinds if kind != "static")

    def records(self) -> list[dict[str, Any]]:
        """One row for each metric of the probe and of each baseline."""
        return probe_records(self.results)

    def table(self) -> TextTable:
        """Probe, baselines and the paper's row (Tables 2 and 3)."""
        return probe_table(self.experiment, self.results, self._rows())

    def plots(self) -> "dict[str, Figure]":
        """None: curves and scatter plots are in TensorBoard."""
        return {}
