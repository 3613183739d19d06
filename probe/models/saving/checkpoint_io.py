"""Checkpoint files that are complete or absent, wherever the temporary folder lies."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

from extract.utils import write_bytes


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place, synced and renamed.

    Lightning writes a checkpoint to the system's folder of temporary files and moves it; from another file system that
    is a copy over the former checkpoint, which a kill leaves half written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save a checkpoint; one on a remote file system as Lightning does.

        Raises:
            UserError: it cannot be written; the former one is unchanged.

        """
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, checkpoint_bytes(checkpoint))


def checkpoint_bytes(checkpoint: dict[str, Any]) -> memoryview:
    """Bytes of a checkpoint file: all that `AtomicCheckpointIO` writes to a local disk."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getbuffer()


def use_atomic_checkpoints(trainer: Trainer) -> None:
    """Let a Trainer write checkpoints by `AtomicCheckpointIO`, unless it was given a plugin for that."""
    strategy = trainer.strategy
    held = strategy.checkpoint_io
    if type(held) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
    elif isinstance(held, _WrappingCheckpointIO) and type(held.checkpoint_io) is TorchCheckpointIO:
        held._checkpoint_io = AtomicCheckpointIO()
