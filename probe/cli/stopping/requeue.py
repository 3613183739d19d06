"""SLURM's signal before a job's time limit: the job is requeued, and goes on where it is when SLURM starts it again."""

import os
import subprocess
import sys
from typing import Any

from extract.utils import say


class Requeue:
    """The signal that asks for it, and how it is obeyed.

    `predict`, `validate` and `test` keep what is finished, and need no checkpoint: the job is requeued as soon as the
    signal comes, by the thread that watches signals, since the first process may wait for others. SLURM then ends all
    processes by SIGTERM, which they obey after their batch. Training waits for a batch's end and saves a checkpoint.
    """

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, number: int | None) -> None:
        """A stage; which signal asks, None for none."""
        self.number = number
        self.training = self.wanted = self.done = self._asked = False
        # training: the signal waits for the end of a batch; wanted: it came then; done: SLURM has requeued the job.

    def handle(self, *_: Any) -> None:
        """Note the signal in training: its handler."""
        self.wanted = self.training

    def signalled(self) -> None:
        """Obey the signal wherever no training is."""
        if not self.training:
            self.ask()

    def ask(self) -> bool:
        """Let SLURM requeue the job, by its first process and once; whether this process has done so."""
        if not self._asked and is_first():
            self._asked = True
            self.done = _requeue(str(job()))
        return self.done


REQUEUE = Requeue()
"""That of this process."""


def job() -> str | None:
    """Id of the SLURM job that this process belongs to, of an array its task; it stays when the job is requeued."""
    return os.environ.get("SLURM_JOB_ID")


def is_first() -> bool:
    """Whether this is the first of the processes that SLURM has started for a step, or none of these."""
    return os.environ.get("SLURM_PROCID", "0") == "0"


def _requeue(number: str) -> bool:
    try:
        done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = f"scontrol: {error.strerror}"
    if reason:
        say(f"SLURM does not requeue job {number} ({reason}); submit it again, and it goes on", sys.stderr)
    else:
        say(f"SLURM requeues job {number}: it goes on when it starts again", sys.stderr)
    return not reason
