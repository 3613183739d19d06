"""A signal that ends the run: it is obeyed after the current batch, whose results are kept."""

from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(SystemExit):
    """The run ends because of a signal; the exit code is 128 + its number, as a shell reports it.

    >>> Stopped(15).code, Stopped(2).code  # SIGTERM, SIGINT
    (143, 130)

    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class StopRequest:
    """The signal that this process received, and whether it may end immediately or finishes a batch first.

    Outside of batches there is nothing to finish: the signal's handler raises `Stopped` where the process is.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget a signal, as at the begin of a command."""
        self.signum: int | None = None
        self.finishing = False
        """Whether a signal waits for the end of a batch."""

    def received(self, signum: int) -> None:
        """Note a signal; only the first counts.

        Raises:
            Stopped: no batch is being computed.

        """
        if self.signum is None:
            self.signum = int(signum)
            if not self.finishing:
                raise Stopped(self.signum)

    def check(self) -> None:
        """End the run here if a signal was received.

        Raises:
            Stopped: it was.

        """
        if self.signum is not None:
            raise Stopped(self.signum)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Finish what is inside before a signal is obeyed.

        >>> stop = StopRequest()
        >>> with stop.batch():
        ...     stop.received(15)
        ...     print("finished")
        Traceback (most recent call last):
        extract.stopping.Stopped: 143

        """
        self.check()
        self.finishing = True
        try:
            yield
        finally:
            self.finishing = False
        self.check()


STOP = StopRequest()
"""That of this process: signals arrive at a process, not at an object."""
