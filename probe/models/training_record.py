"""Modules trained on score rows: checks of their data, baselines, and the model card."""

from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules import ScoreRows
from extract.errors import UserError
from extract.scores import ExcludedKeys, Target
from extract.store import shared_names
from extract.utils import Resamples, Seed
from probe.heads import training_means
from probe.models.baselines import Baselines, fit_baselines
from probe.models.model_card import probe_card
from probe.models.saving.data_record import data_record, split_text
from probe.models.saving.trained_module import TrainedModule


class TrainedOnRows(TrainedModule):
    """A LightningModule that is trained on score rows and keeps the record of its training data in checkpoints.

    Args:
        resamples: Bootstrap resamples of the test samples for 95 % intervals.
        seed: Of the bootstrap.
        **kwargs: See `TrainedModule`.

    """

    target: Target
    """The score it predicts: `copy_paste` or `reasoning`."""
    head_means: Tensor
    """Buffer of the training rows' mean score of each head: the static baseline."""
    run_settings = (*TrainedModule.run_settings, "resamples", "seed")

    def __init__(self, resamples: Resamples = 200, seed: Seed = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.resamples, self.bootstrap_seed = resamples, seed
        self.results: dict[str, Any] = {}
        """Metrics of the last test and their provenance; empty before it."""
        self.baselines: list[Baselines] = []
        """Of each offset; none before `fit`, or in a checkpoint of a version that had none."""

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

    def model_card(self, command: str, file: str) -> str:
        """Its model card, with the metrics of the last test."""
        return probe_card(type(self).__name__, self.training_record, command, self.results or None, file)

    def on_test_end(self) -> None:
        """Write the card again, with the metrics."""
        if self.results and self.trainer.ckpt_path is not None:
            self.write_card(Path(self.trainer.ckpt_path))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the baselines."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["probe"]["baselines"] = [one.as_dict() for one in self.baselines]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the baselines, too."""
        held = checkpoint.get("probe", {}).get("baselines", [])
        self.baselines = [Baselines.from_dict(values) for values in held]
        super().on_load_checkpoint(checkpoint)
