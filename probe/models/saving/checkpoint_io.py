"""Checkpoint files that are complete or absent, wherever the temporary folder lies, and carry their hash."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

from extract.errors import UserError
from extract.utils import add_zip_hash, check_zip_hash, write_bytes


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place, synced and renamed, with their hash as zip comment.

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

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint as Lightning does, after a comparison with its hash; a remote one is not compared.

        Raises:
            UserError: it is damaged.

        """
        if _is_local_file_protocol(path) and Path(path).is_file():
            check_checkpoint(Path(path))
        return super().load_checkpoint(path, *args, **kwargs)


def check_checkpoint(file: Path) -> bool:
    """Compare a checkpoint with the hash in its zip comment; whether it has one.

    Raises:
        UserError: it is damaged, or cannot be read.

    """
    try:
        with file.open("rb") as archive:
            return check_zip_hash(archive)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); copy it again, or train the probe again") from error


def checkpoint_bytes(checkpoint: dict[str, Any]) -> memoryview:
    """Bytes of a checkpoint file: all that `AtomicCheckpointIO` writes to a local disk.

    The comment changes nothing for other readers: `torch.load` opens the file anywhere.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    add_zip_hash(buffer)
    return buffer.getbuffer()


def use_atomic_checkpoints(trainer: Trainer) -> None:
    """Let a Trainer write checkpoints by `AtomicCheckpointIO`, unless it was given a plugin for that."""
    strategy = trainer.strategy
    held = strategy.checkpoint_io
    if type(held) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
    elif isinstance(held, _WrappingCheckpointIO) and type(held.checkpoint_io) is TorchCheckpointIO:
        held._checkpoint_io = AtomicCheckpointIO()
