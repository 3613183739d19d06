"""A trained LightningModule whose checkpoints hold the record of its training data and load without running code."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info

from datamodules import Resumable
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.store import sample_names
from extract.utils import NonNegativeInt, PositiveFloat, Range, command, digest, public_name, write_card
from probe.models.model_card import PAPER, card_metadata, training_table


class TrainedModule(Resumable):
    """A LightningModule that is trained for one LLM and keeps the record of its training data in checkpoints.

    Args:
        lr: Adam's learning rate (A.5: 3e-4).
        patience: Epochs without a better validation loss before the rate drops (A.5: 3).
        factor: By which it drops (PyTorch's default; the paper gives none).

    """

    run_settings: ClassVar[tuple[str, ...]] = ("llm", "store")
    """Settings of a run, which no checkpoint keeps. The CLI links the first two to every model."""
    structure: ClassVar[tuple[str, ...]] = ("in_features", "num_heads")
    """Settings that weights depend on: a checkpoint of others is refused. Any other setting may be changed."""

    def __init__(
        self,
        lr: PositiveFloat = 3e-4,
        patience: NonNegativeInt = 3,
        factor: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=list(self.run_settings))  # of the subclass: Lightning walks up its frames
        self.lr, self.patience, self.factor = lr, patience, factor
        self.training_record: dict[str, Any] = {}
        """LLM, store, target, split and sample ids (`seen`) of the training data; empty before `fit`."""

    def configure_optimizers(self) -> Any:
        """Adam, with a learning rate that drops on a plateau of `val/loss` (A.5).

        The plateau is measured in validations; without any, or in Lightning's barebones mode, the rate stays.
        """
        # Fused: the same update in one pass over memory. It unscales gradients itself, so under automatic mixed
        # precision Lightning refuses to clip them.
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision == "32-true"
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=fused)
        if not self.trainer.enable_validation or self.trainer.barebones:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=self.patience, factor=self.factor)
        # `Resumable` steps it, Lightning never: the frequency is in epochs.
        config = {"scheduler": scheduler, "monitor": "val/loss", "frequency": sys.maxsize}
        return {"optimizer": optimizer, "lr_scheduler": config}

    @property
    def llm(self) -> LLMIdentity:
        """The LLM it was trained for."""
        return LLMIdentity(**self.training_record["llm"])

    @property
    def training_ids(self) -> frozenset[str]:
        """Names of its training and validation samples, of all stores that it was fitted on."""
        return frozenset[str]().union(*(sample_names(name) for name in self.training_record.get("seen", ())))

    def check_llm(self, identity: LLMIdentity) -> None:
        """Refuse hidden states of another LLM.

        Raises:
            UserError: the weights differ; the message names both.

        """
        if self.training_record and not self.llm.same_model(identity):
            raise UserError(
                f"this probe was trained on {self.llm} and is not valid for {identity}, which differs in "
                f"{self.llm.differences(identity)}: train one for that model"
            )

    def data_llm(self) -> LLMIdentity:
        """The LLM of the run's data, which `setup` has checked."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        identity: LLMIdentity = data.identity
        return identity

    def model_card(self, command: str, file: str) -> str:
        """README.md of the trained module: its LLM and training data, to which subclasses add use and evaluation.

        Args:
            command: What trained or evaluated it.
            file: The checkpoint's name, or `.` for an export.

        """
        del file
        kind, record = type(self).__name__, self.training_record
        table = training_table(record, f"`{record['store']}`", command, PAPER)
        return f"---\n{card_metadata(kind, record, [], 'probe')}\n---\n\n# {kind} for {self.llm.name}\n\n{table}\n"

    def write_card(self, checkpoint: Path) -> None:
        """Write the model card beside a checkpoint, if there is one and it is known what was trained."""
        if not (self.trainer.is_global_zero and checkpoint.is_file() and self.training_record):
            return
        if line := write_card(checkpoint.parent, self.model_card(command(), checkpoint.name)):
            rank_zero_info(line)

    def on_fit_end(self) -> None:
        """Write a model card beside the checkpoints."""
        for callback in self.trainer.checkpoint_callbacks:
            if file := getattr(callback, "best_model_path", ""):
                self.write_card(Path(file))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class and training record in plain values, so that loading executes no code."""
        super().on_save_checkpoint(checkpoint)
        name = public_name(type(self))
        checkpoint["probe"] = {"class": name, "origin": self.training_record}
        if "_class_path" in checkpoint.get("hyper_parameters", {}):
            checkpoint["hyper_parameters"]["_class_path"] = name

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the training record; refuse what does not fit before weights of another size fail to load.

        Raises:
            UserError: the data are another LLM's, or a setting of the structure differs.

        """
        super().on_load_checkpoint(checkpoint)
        self.training_record = checkpoint.get("probe", {}).get("origin", {})
        if self._trainer is not None:
            self.check_llm(self.data_llm())
        saved = checkpoint.get("hyper_parameters", {})
        self.check_structure(saved, self.hparams)
        self._change_schedule(checkpoint, saved)

    @classmethod
    def check_structure(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Refuse settings that weights depend on and that are not those of a checkpoint.

        Args:
            saved: Settings of the checkpoint.
            wanted: Settings of the run, or some of them.

        Raises:
            UserError: naming the first that differs.

        """
        for name in cls.structure:
            if name in saved and name in wanted and digest(saved[name]) != digest(wanted[name]):
                raise UserError(
                    f"model.init_args.{name}: {wanted[name]} here, but the checkpoint was trained with {saved[name]}; "
                    "its weights fit no other value"
                )

    def _change_schedule(self, checkpoint: dict[str, Any], saved: Mapping[str, Any]) -> None:
        """Let a changed learning rate and schedule take effect: the checkpoint's optimizer state has the former."""
        if saved.get("lr", self.lr) != self.lr:
            for state in checkpoint.get("optimizer_states", ()):
                for group in state["param_groups"]:
                    group["lr"] = self.lr
        for schedule in checkpoint.get("lr_schedulers", ()):
            schedule.update(patience=self.patience, factor=self.factor)
