"""Locks of folders: one run at a time writes a score store, trials or checkpoints, on all machines that share them."""

import atexit
import fcntl
import json
import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.utils.files.processes import Process, this_process
from extract.utils.files.writing import temporary_name
from extract.utils.run_record import command
from extract.utils.terminal import say

LOCK = ".drh-lock"
"""Name of the lock in its folder: a JSON file that names process, host and command of the run."""
BEAT, STALE = 20.0, 300.0
"""Seconds between two signs of life of the holder; without one for so long, a run on another machine is over."""
WAIT = 5.0
"""Seconds between two attempts of a job that has started again."""


class FolderLock:
    """Exclusive right of a run to write to a folder.

    The lock is a file, created exclusively, which works on local and on network file systems. Its holder renews the
    file's time. The lock of a process that is gone is taken over: on the same machine as soon as it has ended, on
    another one when its file has not been renewed for `STALE` seconds. A process that asks again has it already. A
    SLURM job that has started again waits until its earlier start is over: the node that failed gives no sign of it.

    Args:
        folder: The folder; it exists when the lock is taken.
        setting: Name of the setting that would choose another one, for messages.

    """

    def __init__(self, folder: Path, setting: str) -> None:
        self.file, self.setting = Path(os.path.realpath(folder)) / LOCK, setting

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UserError: another run holds it, or the folder cannot be written to.

        """
        if (held := _HELD.get(self.file)) is not None and held.valid():
            return
        try:
            said = False
            while (token := _create(self.file)) is None:
                if (earlier := self._clear_stale()) is not None:
                    if not said:
                        say(
                            f"{self.file.parent}: waits until this job's earlier start on {earlier} is over", sys.stderr
                        )
                    said = True
                    time.sleep(WAIT)
        except OSError as error:
            raise UserError(f"cannot lock {self.file.parent}: {error.strerror or error}") from error
        _HELD[self.file] = _Holding(self.file, token)

    def release(self) -> None:
        """Give the lock back; without effect where this process does not have it."""
        held = _HELD.pop(self.file, None)
        if held is not None:
            held.end()

    def _clear_stale(self) -> str | None:
        """Remove the lock of a run that is over; the host of one to wait for.

        Raises:
            UserError: the run goes on.

        """
        try:
            handle = os.open(self.file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # released in between
        with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as file:
            with suppress(OSError):  # of two that take over, one removes; a file system may have no such locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            state = os.fstat(handle)
            if not _names(self.file, state.st_ino):
                return None
            record = _record(file.read())
            if self._runs(record, state.st_mtime):
                return str(record.get("host"))
            self.file.unlink(missing_ok=True)
        return None

    def _runs(self, record: dict[str, Any], renewed: float) -> bool:
        running = _process(record).running()
        if running is None:  # on another machine: known by its signs of life only, in the file system's time
            running = self._now() - renewed < STALE
            hint = f", or delete {self.file} if it is over (it counts as over after {STALE / 60:.0f} minutes)"
        else:
            hint = ""
        if running and not _earlier_start(record):
            raise UserError(
                f"{self.file.parent} is being written by another run: host {record.get('host', 'unknown')}, "
                f"pid {record.get('pid', 'unknown')}, since {record.get('since', 'unknown')}, "
                f"{str(record.get('command', 'unknown'))[:120]}; wait for its end{hint}, or choose another "
                f"{self.setting}"
            )
        return running

    def _now(self) -> float:
        """Time of the folder's file system, which may be another machine's clock."""
        probe = temporary_name(self.file)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


class _Holding:
    """A lock that this process has: its file, and the thread that renews it."""

    def __init__(self, file: Path, token: str) -> None:
        self.file, self.token, self.owner = file, token, this_process()
        self.ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def valid(self) -> bool:
        """Whether it is still there; a forked process does not have its parent's."""
        return self.owner == this_process() and self._there()

    def end(self) -> None:
        """Stop renewing, and remove the file."""
        if self.valid():
            self.file.unlink(missing_ok=True)
        self.ended.set()

    def _renew(self) -> None:
        while not self.ended.wait(BEAT) and self._there():
            with suppress(OSError):
                os.utime(self.file)

    def _there(self) -> bool:
        """Whether the file is still the one that this process made."""
        with suppress(OSError):
            return _record(self.file.read_text(encoding="utf-8", errors="replace")).get("token") == self.token
        return False


_HELD: dict[Path, _Holding] = {}
"""Locks of this process, by file."""


def release_locks() -> None:
    """Release every lock of this process: at its end, and where a run fails."""
    while _HELD:
        _HELD.popitem()[1].end()


atexit.register(release_locks)


def _create(file: Path) -> str | None:
    """Make the file of a lock; a random text in it that tells it from others, None where there is a file already."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return None
    token = secrets.token_hex(8)
    record = {
        **asdict(this_process()),
        "token": token,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": command(),
        **_start(),
    }
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as opened:
            json.dump(record, opened)
            opened.flush()
            os.fsync(handle)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return token


def _start() -> dict[str, Any]:
    """The SLURM job of this process, and how often it was requeued; empty outside of SLURM."""
    job, restarts = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0")
    return {"slurm_job": job, "slurm_restarts": int(restarts)} if job and restarts.isdigit() else {}


def _earlier_start(record: dict[str, Any]) -> bool:
    """Whether a lock is that of the same SLURM job, from before it was requeued."""
    own, restarts = _start(), record.get("slurm_restarts")
    same = bool(own) and record.get("slurm_job") == own["slurm_job"]
    return same and isinstance(restarts, int) and restarts < own["slurm_restarts"]


def _names(file: Path, inode: int) -> bool:
    """Whether a path still names a file that is open."""
    try:
        return file.lstat().st_ino == inode
    except OSError:
        return False


def _record(text: str) -> dict[str, Any]:
    """Content of a lock; empty of one that is not written yet, or is damaged."""
    with suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict):
            return record
    return {}


def _process(record: dict[str, Any]) -> Process:
    """The holder; of a damaged record, one that cannot be known."""
    try:
        return Process(str(record["host"]), str(record["system"]), int(record["pid"]), int(record["started"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return Process("", "", 0, 0)
