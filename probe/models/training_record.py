"""Modules trained on score rows: settings that all share, and the record of the training data in checkpoints."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules import Resumable, ScoreRows
from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.scores import ExcludedKeys, Target
from extract.store import sample_names, shared_names
from extract.utils import (
    NonNegativeInt,
    PositiveFloat,
    Range,
    Resamples,
    Seed,
    command,
    digest,
    public_name,
    write_card,
)
from probe.heads import training_means
from probe.models.baselines import Baselines, fit_baselines
from probe.models.model_card import probe_card
from probe.models.saving.data_record import data_record, split_text


class TrainedOnRows(Resumable):
    """A LightningModule that is trained on score rows and keeps the record of its training data in checkpoints.

    Args:
        lr: Adam's learning rate (A.5: 3e-4).
        patience: Epochs without a better validation loss before the rate drops (A.5: 3).
        factor: By which it drops (PyTorch's default; the paper gives none).
        resamples: Bootstrap resamples of the test samples for 95 % intervals.
        seed: Of the bootstrap.

    """

    target: Target
    """The score it predicts: `copy_paste` or `reasoning`."""
    head_means: Tensor
    """Buffer of the training rows' mean score of each head: the static baseline."""
    run_settings: ClassVar[tuple[str, ...]] = ("llm", "store", "resamples", "seed")
    """Settings of a run, which no checkpoint keeps. The CLI links the first two to every model."""
    structure: ClassVar[tuple[str, ...]] = ("in_features", "num_heads")
    """Settings that weights depend on: a checkpoint of others is refused. Any other setting may be changed."""

    def __init__(
        self,
        lr: PositiveFloat = 3e-4,
        patience: NonNegativeInt = 3,
        factor: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.1,
        resamples: Resamples = 200,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=list(self.run_settings))  # of the subclass: Lightning walks up its frames
        self.lr, self.patience, self.factor = lr, patience, factor
        self.resamples, self.bootstrap_seed = resamples, seed
        self.training_record: dict[str, Any] = {}
        """LLM, store, target, split and sample ids (`seen`) of the training data; empty before `fit`."""
        self.baselines: list[Baselines] = []
        """Of each offset; none before `fit`, or in a checkpoint of a version that had none."""
        self.results: dict[str, Any] = {}
        """Metrics of the last test and their provenance; empty before it."""

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

    def check_scores(self, excluded: ExcludedKeys | None, offset: int, where: str) -> None:
        """Refuse scores that this probe does not predict: those of another step, or by an Eq. 2 of other keys.

        Args:
            excluded: Keys that the scores leave out; None where that is unknown.
            offset: Whose scores they are: this many steps later.
            where: Where they are, for the message.

        Raises:
            UserError: naming both sides.

        """
        record = self.training_record
        if (own := record.get("split", {}).get("offset", 0)) != offset:
            raise UserError(
                f"this probe predicts the scores of {own} steps later (data.offset), but {where} those of {offset}"
            )
        if self.target == "reasoning" and excluded is not None and (held := record.get("excluded")) is not None:
            ExcludedKeys(**held).refuse_other(excluded, where, "the data that this probe was trained on")

    def setup(self, stage: str) -> None:
        """Check that the data holds what this probe predicts.

        Raises:
            UserError: another data module, or another target.

        """
        del stage
        rows = self._rows()
        if rows.target != self.target:
            raise UserError(f"data.target is {rows.target}, but {type(self).__name__} predicts {self.target}")

    def _rows(self) -> ScoreRows:
        rows = getattr(self.trainer, "datamodule", None)
        if not isinstance(rows, ScoreRows):
            raise UserError("a probe is trained on datamodules.ScoreRows: set data.class_path to it")
        return rows

    def check_held_out(self) -> None:
        """Refuse another LLM's rows, and test samples that were training or validation samples.

        On the trained store the split must be the same; in another store no sample may have a training sample's id.

        Raises:
            UserError: naming both sides.

        """
        rows, record = self._rows(), self.training_record
        self.check_llm(rows.identity)
        self.check_scores(rows.test_store.excluded, rows.offset, str(rows.test_path or rows.store_path))
        if rows.test_path is None and record["store"] == rows.store.fingerprint:
            if record["split"] != (split := rows.split_record()):
                raise UserError(
                    f"data.split {split_text(split)} is not the one this probe was trained with "
                    f"({split_text(record['split'])}): test rows would be training rows"
                )
        elif shared := shared_names(rows.sample_names("test", records=True), self.training_ids):
            raise UserError(
                f"{len(shared)} of the test samples of {rows.test_path or rows.store_path} were training or validation "
                f"samples of this probe ({shared[0]}, …): extract others, by another seed or other questions"
            )

    def provenance(self) -> dict[str, Any]:
        """What a test runs on: checkpoint, LLM, score stores, split."""
        rows, checkpoint = self._rows(), self.trainer.ckpt_path
        return {
            "checkpoint": str(checkpoint) if checkpoint else None,
            "llm": self.training_record["llm"],
            "store": rows.store.fingerprint,
            "test_store": rows.test_store.fingerprint,
            "split": rows.split_record(),
            "settings": {name: value for name, value in self.hparams.items() if not name.startswith("_")},
        }

    def on_fit_start(self) -> None:
        """Record the training data, and compute the baselines that have no hidden state."""
        if self.training_record:
            self.check_held_out()
        rows = self._rows()
        self.training_record = data_record(rows, self.training_record.get("seen", ()))
        self.head_means.copy_(training_means(rows))
        self.baselines = fit_baselines(rows)

    def on_test_start(self) -> None:
        """Check that the probe is trained and the test rows are held out.

        Raises:
            UserError: it is untrained, or the rows are not held out.

        """
        if not self.training_record:
            raise UserError("this probe is untrained: add --ckpt_path with a checkpoint of `lightning fit`")
        self.check_held_out()

    def on_validation_start(self) -> None:
        """As for a test when validation is the stage; within `fit` the rows have been checked."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.on_test_start()

    def on_fit_end(self) -> None:
        """Write a model card beside the checkpoints."""
        for callback in self.trainer.checkpoint_callbacks:
            if file := getattr(callback, "best_model_path", ""):
                self._write_card(Path(file))

    def on_test_end(self) -> None:
        """Write the card again, with the metrics."""
        if self.results and self.trainer.ckpt_path is not None:
            self._write_card(Path(self.trainer.ckpt_path))

    def _write_card(self, checkpoint: Path) -> None:
        if self.trainer.is_global_zero and checkpoint.is_file():
            kind = type(self).__name__
            text = probe_card(kind, self.training_record, command(), self.results or None, checkpoint.name)
            if line := write_card(checkpoint.parent, text):
                rank_zero_info(line)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class and training record in plain values, so that loading executes no code."""
        super().on_save_checkpoint(checkpoint)
        name = public_name(type(self))
        baselines = [one.as_dict() for one in self.baselines]
        checkpoint["probe"] = {"class": name, "origin": self.training_record, "baselines": baselines}
        if "_class_path" in checkpoint.get("hyper_parameters", {}):
            checkpoint["hyper_parameters"]["_class_path"] = name

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the training record; refuse what does not fit before weights of another size fail to load.

        Raises:
            UserError: the data are another LLM's, or a setting of the structure differs.

        """
        super().on_load_checkpoint(checkpoint)
        probe = checkpoint.get("probe", {})
        self.training_record = probe.get("origin", {})
        self.baselines = [Baselines.from_dict(values) for values in probe.get("baselines", [])]
        if self._trainer is not None:
            self.check_llm(self._rows().identity)
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
