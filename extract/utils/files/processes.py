"""Identity of a process on a machine: whether the one that a file names still runs."""

import functools
import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process as other processes can recognise it.

    Attributes:
        host: Name of its machine.
        system: Hash of host, boot and PID namespace: within one, a number names one process at a time.
        pid: Its number.
        started: Clock ticks from the boot to its start: a number that was given again has another start.

    """

    host: str
    system: str
    pid: int
    started: int

    def running(self) -> bool | None:
        """Whether it runs; None where this process cannot know: on another machine or in another container."""
        if self.system != _system():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's: it runs
        return _started(self.pid) in (self.started, 0)


def this_process() -> Process:
    """The process that asks.

    >>> this_process().running()
    True

    """
    return Process(platform.node(), _system(), os.getpid(), _started(os.getpid()))


@functools.cache
def _system() -> str:
    """Hash of the host's name, its boot, and the namespace in which process numbers are unique."""
    parts = [platform.node(), _text(Path("/proc/sys/kernel/random/boot_id")), _link(Path("/proc/self/ns/pid"))]
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:12]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""


def _started(pid: int) -> int:
    """Field 22 of /proc/PID/stat, after the command's name in brackets; 0 where there is no such file."""
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0
