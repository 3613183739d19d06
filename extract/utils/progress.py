"""Progress of running work: one line that is redrawn in a terminal, and a line now and then elsewhere."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TextIO

from tqdm import tqdm

from extract.utils.terminal import printable, say

REDRAWN_EVERY, LINES_EVERY = 0.2, 30.0
"""Seconds from one state to the next: in a terminal, and where each is a line of a log."""
SLOW = 2.0
"""Seconds after which running work is reported."""
_state = {"shown": True}


def show_progress(shown: bool) -> None:
    """Whether this process shows any progress from now on, as `trainer.enable_progress_bar` says."""
    _state["shown"] = shown


def shows_progress() -> bool:
    """Whether progress is shown here: not if it is switched off, and of several processes in the first alone."""
    lightning = sys.modules.get("lightning.fabric.utilities.rank_zero")  # where it is not loaded, there is one process
    return _state["shown"] and getattr(getattr(lightning, "rank_zero_only", None), "rank", 0) in (0, None)


class Progress:
    """State of some work.

    Args:
        name: Of the work.
        total: Its size, in units.
        unit: What is counted.
        delay: Seconds before anything is shown.
        file: Where it is shown; by default stderr.

    """

    def __init__(
        self, name: str, total: float, unit: str = "", delay: float = SLOW, file: TextIO | None = None
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self._file = file or sys.stderr
        self._terminal, self._shown = self._file.isatty(), shows_progress()
        self._begun = time.monotonic()
        self._next = self._begun + (delay if self._terminal else LINES_EVERY)
        self._bar: Any = None

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begun

    def left(self, done: float) -> str:
        """Time left, if the rest takes as long a unit as what is done."""
        if done <= 0:
            return ""
        return f"{duration(self.seconds / done * max(0.0, self.total - done))} left"

    def due(self) -> bool:
        """Whether a new state would be shown: ask before an expensive text."""
        return self._shown and time.monotonic() >= self._next

    def show(self, done: float, text: str = "") -> None:
        """Show a state, if the last one was shown long enough ago.

        Args:
            done: Units.
            text: What is said of it; by default the numbers and the time left.

        """
        if not self.due():
            return
        self._next = time.monotonic() + (REDRAWN_EVERY if self._terminal else LINES_EVERY)
        counts = f"{done:,.0f}/{self.total:,.0f} {self.unit}".strip()
        line = printable(f"{self.name}: {text or ', '.join(part for part in (counts, self.left(done)) if part)}")
        if self._terminal:
            self._draw(done, line)
        else:
            say(line, self._file)

    def _draw(self, done: float, line: str) -> None:
        if self._bar is None:
            form = "{percentage:3.0f}%|{bar:10}| {desc}"
            # Not dynamic_ncols: in a terminal that does not tell its rows, tqdm would hide the line.
            self._bar = tqdm(total=self.total, file=self._file, bar_format=form, ncols=1, nrows=20, leave=False)
        self._bar.ncols = max(20, shutil.get_terminal_size().columns - 1)
        self._bar.n = min(done, self.total)
        self._bar.set_description_str(line)

    def close(self) -> None:
        """Remove the line from the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def said_if_slow(line: str, seconds: float = SLOW) -> Iterator[None]:
    """Within the block, say what is being done as soon as it has taken some seconds; nothing of quick work.

    Args:
        line: What is said.
        seconds: After how many.

    """
    timer = threading.Timer(seconds, say, (line, sys.stderr))
    timer.daemon = True
    if shows_progress():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(75), duration(3725)
    ('1:15', '1:02:05')

    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size_text(size: float) -> str:
    """Bytes in MiB or GiB.

    >>> size_text(145 * 2**20), size_text(2**31)
    ('145 MiB', '2.0 GiB')

    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
