"""A SLURM job without SLURM: its variables, and a script in place of `scontrol`."""

import os
from pathlib import Path

import pytest


class Job:
    """The variables of a job with one process; `scontrol requeue` notes what it is asked, and ends the process.

    SLURM, too, ends the processes of a job that is requeued by SIGTERM.

    Args:
        patch: Sets the variables.
        folder: Where the script and its notes go.
        number: The job's id.

    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, number: int = 17) -> None:
        self.folder, self.patch = folder / "slurm", patch
        self.folder.mkdir()
        self.scontrol(f"echo $@ >> {self.folder}/asked\nkill -TERM $PPID")
        patch.setenv("PATH", f"{self.folder}{os.pathsep}{os.environ['PATH']}")
        one = {"JOB_NAME": "stage", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
        for name, value in one.items():
            patch.setenv(f"SLURM_{name}", value)
        self.become(number)

    def become(self, number: int) -> None:
        """From here on another job."""
        self.patch.setenv("SLURM_JOB_ID", str(number))

    def scontrol(self, script: str) -> None:
        """What `scontrol` does instead."""
        (self.folder / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / "scontrol").chmod(0o755)

    def asked(self) -> list[str]:
        """The arguments of each call."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []
