"""SIGTERM and Ctrl-C on the command line: one line that says how to go on, and exit code 143 or 130."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from extract.stopping import STOP
from extract.utils import say
from probe.cli.stopping.requeue import REQUEUE, is_first
from probe.cli.stopping.run_processes import FURTHER, end_with_parent, first_process, is_further
from probe.cli.stopping.signals import PATIENCE, listening

STOPPED_CHECKPOINT = "stopped.ckpt"
"""Written beside the other checkpoints where `fit` stops; removed when a run that resumed from it is complete."""


class Run:
    """The command of this process, and where its checkpoints are."""

    def __init__(self) -> None:
        self.begin([])

    def begin(self, argv: Sequence[str]) -> None:
        """A new command."""
        self.argv, self.began, self.further = list(argv), time.time(), is_further()
        self.checkpoints: Callable[[], Sequence[Path]] = lambda: ()
        """Gives the folders that it writes checkpoints to."""

    def line(self, signum: int) -> str:
        """What a stopped command prints: the signal, and the command that goes on; a requeued job does by itself."""
        stopped = f"stopped by {signal.Signals(signum).name}; what is finished is kept"
        if REQUEUE.done:
            return stopped
        argv = with_checkpoint(self.argv, self._checkpoint()) if self.argv[:1] == ["fit"] else self.argv
        command = " ".join(shlex.join(["lightning", *argv]).split())
        return f"{stopped}; go on with: {command}"

    def _checkpoint(self) -> Path | None:
        """The latest checkpoint of this run: that of its stop, else `last.ckpt`; None to begin as it began."""
        files = [folder / name for name in (STOPPED_CHECKPOINT, "last.ckpt") for folder in self.checkpoints()]
        return next((file for file in files if file.is_file() and file.stat().st_mtime >= self.began), None)


RUN = Run()
"""That of this process."""


def with_checkpoint(argv: Sequence[str], checkpoint: Path | None) -> list[str]:
    """Arguments of a command with another `--ckpt_path`; unchanged without a checkpoint.

    >>> with_checkpoint(["fit", "--ckpt_path", "a.ckpt", "-c", "probe.yaml"], Path("b.ckpt"))
    ['fit', '-c', 'probe.yaml', '--ckpt_path', 'b.ckpt']
    >>> with_checkpoint(["fit", "--ckpt_path=a.ckpt"], Path("b.ckpt"))
    ['fit', '--ckpt_path', 'b.ckpt']

    """
    if checkpoint is None:
        return list(argv)
    with suppress(ValueError):
        checkpoint = checkpoint.relative_to(Path.cwd())
    kept, words = list[str](), iter(argv)
    for word in words:
        if word == "--ckpt_path":
            next(words, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    return [*kept, "--ckpt_path", str(checkpoint)]


def stoppable(argv: Sequence[str], command: Callable[[], int]) -> int:
    """Run a command, and stop it where a signal asks for it; its exit code."""
    RUN.begin(argv)
    if RUN.further:
        end_with_parent()
    with first_process(), listening(_end, _fail, os.getppid() if RUN.further else None):
        code = _code(command)
        if STOP.signum is None:
            return code
        if RUN.further:  # Lightning kills all processes where one ends with another code
            return 0
        FURTHER.end(wait=PATIENCE)
        _print_line(STOP.signum)
        return 128 + STOP.signum


def _code(command: Callable[[], int]) -> int:
    try:
        STOP.finishing = False
        STOP.check()
        return command()
    except SystemExit as ended:  # `Stopped`, or Lightning's own at the end of an epoch
        if STOP.signum is None:
            raise
        return 128 + STOP.signum if ended.code else 0
    finally:
        STOP.finishing = True  # what follows is short, and ends the process


@contextmanager
def reporting() -> Iterator[None]:
    """Report the error of a run inside, once: a further process leaves it to the first.

    The first has the same error as a rule, and ends the others; where one still runs after a while, the error is its
    own. What a stopped run ends with is no error.

    Raises:
        Stopped: a signal was received.

    """
    STOP.check()
    if RUN.further:
        time.sleep(2 * PATIENCE)
    try:
        yield
    finally:
        sys.stderr.flush()
        FURTHER.end(wait=0)


def _print_line(signum: int) -> None:
    """The line, below progress bars: each is closed, which ends its own line; of a job's processes the first prints."""
    if not is_first():
        return
    bars = sys.modules.get("tqdm.std")
    for bar in list(getattr(bars.tqdm, "_instances", ())) if bars else ():
        bar.close()
    sys.stdout.flush()
    say(RUN.line(signum), sys.stderr)


def _end(signum: int) -> NoReturn:
    """End immediately because of a signal."""
    if RUN.further:
        os._exit(0)
    _print_line(signum)
    FURTHER.end(wait=0)
    os._exit(128 + signum)


def _fail(code: int) -> NoReturn:
    """End immediately because a further process has failed; it has said why, unless it was killed."""
    if code < 0:
        name = signal.Signals(-code).name
        say(f"error: a process of this run was ended by {name}; run the same command again", sys.stderr)
    FURTHER.end(wait=0)
    os._exit(code if code > 0 else 1)
