"""A callback that sends its process a signal at a chosen point of a run."""

import json
import os
import signal
from typing import Any

from lightning import Callback


class SignalAt(Callback):
    """Sends this process a signal at one of a callback's hooks."""

    def __init__(self, hook: str, epoch: int, batch: int | None, signum: int = 15) -> None:
        self.epoch, self.batch, self.signum = epoch, batch, signum
        setattr(self, hook, self._hook)

    def _hook(self, trainer: Any, *arguments: Any) -> None:
        batch = next((one for one in arguments[::-1] if isinstance(one, int)), None)
        if trainer.current_epoch == self.epoch and (self.batch is None or batch == self.batch):
            os.kill(os.getpid(), self.signum)


def signal_at(hook: str, epoch: int, batch: int | None = None, signum: int = signal.SIGTERM) -> str:
    """The callback as an entry of `trainer.callbacks`."""
    arguments = {"hook": hook, "epoch": epoch, "batch": batch, "signum": int(signum)}
    return json.dumps({"class_path": "tests.helpers.signals.SignalAt", "init_args": arguments})
