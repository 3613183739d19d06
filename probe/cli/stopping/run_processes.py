"""Processes of one run on one machine: the first, and the further ones that Lightning starts for more devices."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

FIRST = "RETRIEVAL_HEADS_FIRST"
"""Environment variable: the first process of the run, for those that it starts."""


class FurtherProcesses:
    """The further processes that this one has started, by subprocess (ddp) or multiprocessing (ddp_spawn)."""

    def __init__(self) -> None:
        self.find: Callable[[], Sequence[Any]] = lambda: ()
        """Gives them; Lightning's launcher knows them once they run."""

    def signal(self, number: int) -> None:
        """Send a signal to each."""
        for process in self.find():
            if process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def failure(self) -> int | None:
        """Exit code of one that failed; multiprocessing raises by itself where one of its own has."""
        codes = (process.poll() for process in self.find() if hasattr(process, "poll"))
        return next((code for code in codes if code), None)

    def end(self, wait: float) -> None:
        """Wait some seconds for them to end, then kill them."""
        until = time.monotonic() + wait
        while any(_runs(process) for process in self.find()) and time.monotonic() < until:
            time.sleep(0.05)
        for process in self.find():
            process.kill()


def _runs(process: Any) -> bool:
    return process.poll() is None if hasattr(process, "poll") else process.is_alive()


FURTHER = FurtherProcesses()
"""Those of this process."""


def is_further() -> bool:
    """Whether Lightning has started this process for a run of several.

    Processes that a cluster or torchrun starts are the first of their own: each has its exit code.
    """
    return os.environ.get(FIRST) == str(os.getppid())


@contextmanager
def first_process() -> Iterator[None]:
    """Let the processes that this one starts know that it is the first."""
    former = os.environ.get(FIRST)
    os.environ[FIRST] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[FIRST]
        if former is not None:
            os.environ[FIRST] = former


def end_with_parent() -> None:
    """Let the kernel kill this process as soon as the one that started it has ended (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    parent, set_death_signal = os.getppid(), 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(128 + signal.SIGKILL)
