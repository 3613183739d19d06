"""Handlers of SIGTERM and SIGINT, and a thread that watches over them.

Handlers run between instructions of Python, so a process that waits inside a library, as ranks do for each other, would
obey none. The thread ends it then, and passes the signal on: it may have reached one process of the run only.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from extract.stopping import STOP
from probe.cli.stopping.requeue import REQUEUE
from probe.cli.stopping.run_processes import FURTHER

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEATED = 1.0
"""Seconds within which another Ctrl-C is the same: `timeout` and terminals signal a process and its group."""
PATIENCE = 5.0
"""Seconds within which a process that computes no batch obeys."""


class Watcher(threading.Thread):
    """Watches the signals and the further processes of the run, whatever the main thread does.

    Args:
        pipe: Where the interpreter writes the number of each signal.
        end: Ends this process immediately, with the exit code of a signal.
        fail: Ends it because a further process of the run ended with this exit code.
        parent: The first process of the run, if this is a further one.

    """

    def __init__(
        self, pipe: int, end: Callable[[int], NoReturn], fail: Callable[[int], NoReturn], parent: int | None
    ) -> None:
        super().__init__(name="signals", daemon=True)
        self.pipe, self.end, self.fail, self.parent = pipe, end, fail, parent
        self.first: tuple[float, int] | None = None
        """When the first signal came, and its number."""
        self.idle_since = self.healthy_at = time.monotonic()

    def run(self) -> None:
        """Until a 0 in the pipe: the command has ended."""
        while True:
            numbers = os.read(self.pipe, 512) if select.select([self.pipe], [], [], 0.2)[0] else b""
            if 0 in numbers:
                return
            for number in numbers:
                if number in SIGNALS:
                    self._signalled(number)
                elif number == REQUEUE.number:
                    REQUEUE.signalled()
            self._end_if_it_hangs()
            self._end_if_another_failed()

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.idle_since = (now, number), now
            FURTHER.signal(signal.SIGTERM)
            if self.parent is not None and os.getppid() == self.parent:
                with suppress(ProcessLookupError):
                    os.kill(self.parent, signal.SIGTERM)
        elif number == signal.SIGINT and now - self.first[0] > REPEATED and self.parent is None:
            self.end(STOP.signum or number)  # a second Ctrl-C

    def _end_if_it_hangs(self) -> None:
        now = time.monotonic()
        if self.first is None or STOP.finishing:
            self.idle_since = now
        elif now - self.idle_since > PATIENCE:
            self.end(STOP.signum or self.first[1])

    def _end_if_another_failed(self) -> None:
        """The others would wait for it; it has printed why."""
        now, code = time.monotonic(), FURTHER.failure()
        if code is None:
            self.healthy_at = now
        elif now - self.healthy_at > REPEATED:  # the main thread may have the same error and end by itself
            if self.first is None:
                self.fail(code)
            self.end(STOP.signum or self.first[1])


@contextmanager
def listening(
    end: Callable[[int], NoReturn], fail: Callable[[int], NoReturn], parent: int | None = None
) -> Iterator[None]:
    """Obey signals inside, by `STOP`; see `Watcher` for the arguments. Signals arrive in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    STOP.reset()
    STOP.finishing = True  # until the command begins
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = {number: signal.getsignal(number) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = Watcher(reading, end, fail, parent)
    watcher.start()
    try:
        take_signals()
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)


def take_signals() -> None:
    """Install the handlers; a signal that the process was started to ignore (`nohup`) stays ignored."""
    process = os.getpid()

    def handle(signum: int, _: Any) -> None:
        if os.getpid() == process:
            STOP.received(signum)
        elif signum == signal.SIGTERM:  # in a loader's worker; its process deals with Ctrl-C
            os._exit(128 + signum)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)


def _leave_alone() -> None:
    """A forked worker of a loader must not report its signals to this process's thread."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_alone)
