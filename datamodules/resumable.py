"""Training that is interrupted and resumed ends with the weights of an unbroken one."""

from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

RANDOM = "random_states"
"""Key of a checkpoint: states of torch's generators, a row for each process."""


class Resumable(LightningModule):
    """Keeps in checkpoints what Lightning leaves out: states of random generators, and the last validation loss.

    Nothing but torch's generators is random in training: batches are shuffled by seed and epoch alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._restored: dict[str, Any] = {}
        self._validated = False
        """Whether a validation ran since the learning rate's schedule was last stepped."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add them; called on all processes."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            checkpoint[RANDOM] = {name: self._of_all(state) for name, state in self._generators().items()}
            checkpoint["val_loss"] = self._last_loss()

    def _last_loss(self) -> float | None:
        """Loss of the last validation of this epoch; None where there was none."""
        held = self.trainer.callback_metrics if self._validated else {"val/loss": self._restored.get("val_loss")}
        loss = held.get("val/loss")
        return None if loss is None else float(loss)

    def _generators(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _of_all(self, state: Tensor) -> Tensor:
        """States [process, byte] of all processes."""
        if self.trainer.world_size == 1:
            return state[None]
        gathered = [torch.empty_like(state, device=self.device) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(gathered, state.to(self.device))
        return torch.stack(gathered).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a checkpoint has of them until training starts; an older one has none."""
        self._restored = {name: checkpoint[name] for name in (RANDOM, "val_loss") if name in checkpoint}

    def on_train_start(self) -> None:
        """Restore the states of random generators."""
        states = self._restored.pop(RANDOM, None)
        if states is None:
            return
        if len(states["cpu"]) != self.trainer.world_size:
            rank_zero_info(
                f"the checkpoint is of {len(states['cpu'])} processes, this run has {self.trainer.world_size}: "
                "it will end with other weights than an unbroken one"
            )
            return
        # Copies: torch crashes on a row of a matrix that is not its first.
        torch.set_rng_state(states["cpu"][self.global_rank].clone())
        if "cuda" in states and self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"][self.global_rank].clone(), self.device)

    def on_train_epoch_start(self) -> None:
        """Sample the number that a loader takes from the global generator for its workers at each epoch.

        The loader of training rows has a generator of its own: in a resumed run Lightning makes its iterator at another
        point, and the numbers after it would be others.
        """
        torch.empty((), dtype=torch.int64).random_()

    def on_validation_epoch_start(self) -> None:
        """Note that the epoch has a validation."""
        self._validated = not self.trainer.sanity_checking

    def on_train_epoch_end(self) -> None:
        """Let a plateau of `val/loss` lower the learning rate, after an epoch with a validation.

        Lightning would do it after the epoch's checkpoint is written, and not at all in an epoch that was resumed.
        """
        loss, scheduler = self._last_loss(), self.lr_schedulers()
        if loss is not None and scheduler is not None:
            scheduler.step(loss)  # type: ignore[union-attr,arg-type]
        self._validated = False
        self._restored.pop("val_loss", None)
