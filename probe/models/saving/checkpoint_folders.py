"""Folders of checkpoints: one run at a time writes to each, and what a killed run left there is removed."""

import os
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.trainer.states import TrainerFn

from extract.errors import UserError
from extract.utils import FolderLock, on_rank_zero, remove_temporary_files


class CheckpointFolders(Callback):
    """Lock the checkpoint folders of a `fit` for its duration, and remove temporary files that killed runs left."""

    def __init__(self) -> None:
        self._locks: list[FolderLock] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the locks, on rank 0.

        Raises:
            UserError: another run writes there, or a folder cannot be written to.

        """
        del pl_module
        if trainer.state.fn == TrainerFn.FITTING and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            on_rank_zero(trainer, lambda: self._open(checkpoint_folders(trainer)))

    def _open(self, folders: list[Path]) -> None:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot write checkpoints to {folder}: {error.strerror}") from error
            self._locks.append(FolderLock(folder, "ModelCheckpoint's dirpath"))
            self._locks[-1].acquire()
            remove_temporary_files(folder)

    def _close(self) -> None:
        while self._locks:
            self._locks.pop().release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the locks after the run."""
        del trainer, pl_module, stage
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release them where it failed or was stopped."""
        del trainer, pl_module, exception
        self._close()


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """Local folders to which a Trainer's callbacks write checkpoints: those that are named, and each once."""
    named: list[Any] = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    return [Path(os.path.realpath(one)) for one in dict.fromkeys(named) if one and _is_local_file_protocol(one)]
