"""Report of an exception: one line for a user's mistake (exit code 2), a log to send for a bug (exit code 70)."""

import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from extract.utils import DISTRIBUTION, say

USER_ERROR, BUG = 2, 70
"""Exit codes; 70 is EX_SOFTWARE of sysexits.h."""
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(str(ROOT / name) for name in ("extract", "datamodules", "probe"))
LIBRARIES = ("site-packages", "dist-packages")
PASSED_ON = tuple(str(ROOT / "probe" / "cli" / name) for name in ("lightning_cli.py", "parser.py"))
"""Modules that pass configurations on: what libraries raise below them refuses a configuration."""
LONGEST = 600
"""Characters of a message that are shown."""


def report_exception(error: BaseException) -> int:
    """Print an exception to stderr as one line; the exit code.

    Args:
        error: A user's mistake, or a bug of this software, whose traceback is written to a new file.

    """
    message = user_message(error)
    say(f"error: {bug_message(error) if message is None else message}", sys.stderr)
    return BUG if message is None else USER_ERROR


def user_message(error: BaseException) -> str | None:
    """What is wrong with a user's input, on one line; None if the exception is a bug of this software.

    A user's mistake is a `UserError` or Lightning's MisconfigurationException anywhere among the causes; a file that
    cannot be read or written; exhausted memory; whatever is raised in a module of the user's, which is named; and what
    a library raises when the command line passes it the configuration.
    """
    causes = [link for link in _chain(error) if isinstance(link, _user_errors())]
    if not causes and isinstance(error, OSError):
        causes = [error]  # a disk or permission problem; deeper in the chain it may be one that was dealt with
    if causes:
        return _line(str(causes[0]) or type(causes[0]).__name__)
    if exhausted := next(filter(_out_of_memory, _chain(error)), None):
        return _line(f"out of memory: {exhausted}; lower batch sizes, llm.prefill_chunk or the sizes of the model")
    root = _root(error)
    if any(frame.filename.startswith(PACKAGES) for frame in traceback.extract_tb(root.__traceback__)):
        error = root  # else it was raised and caught within a library
    frames = list(traceback.extract_tb(error.__traceback__))
    if foreign := [frame for frame in frames if _is_users(frame.filename)]:
        where = f"{foreign[-1].filename}, line {foreign[-1].lineno}, in {foreign[-1].name}"
        return _line(f"{where}: {_named(error)}")
    own = [frame for frame in frames if frame.filename.startswith(PACKAGES)]
    if isinstance(error, RecursionError) and any(_reads_nested(frame.filename) for frame in frames[-20:]):
        return "a config or a record is nested too deeply"
    if own and own[-1] is not frames[-1] and own[-1].filename in PASSED_ON:
        from probe.cli.parser import without_noise

        return _line(f"the configuration is refused by {_library(frames[-1].filename)}: {without_noise(_named(error))}")
    return None


def bug_message(error: BaseException) -> str:
    """What to report of a bug, and where its traceback is; it is written to a new temporary file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGES)]
    where = f" ({Path(frames[-1].filename).relative_to(ROOT)}, line {frames[-1].lineno})" if frames else ""
    return _line(
        f"this is a bug of {DISTRIBUTION}, not of your input: {_line(_named(error), 200)}{where}; the traceback is in "
        f"{_log(error)}, please send it with your command and config to {issues_page()}"
    )


def _log(error: BaseException) -> str:
    """File with the traceback and the command."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="retrieval-heads-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"{' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}")
        return file.name
    except OSError:
        return "no file, since none can be written (RETRIEVAL_HEADS_DEBUG=1 shows it)"


def issues_page() -> str:
    """Address for reports, from the distribution's metadata."""
    try:
        listed = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        listed = []
    pages = dict(line.split(", ", 1) for line in listed)
    return str(pages.get("Issues", "the project's page of issues"))


def _line(text: str, longest: int = LONGEST) -> str:
    """A text on one line, cut at the end."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[:longest] + " …"


def _named(error: BaseException) -> str:
    """An exception's type and message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _is_users(file: str) -> bool:
    """Whether a file is neither this project's nor a library's nor Python's own."""
    outside = file.startswith(("<", *PACKAGES)) or any(name in Path(file).parts for name in LIBRARIES)
    return not outside and not file.startswith((sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")))


def _reads_nested(file: str) -> bool:
    """Whether a file is of a library that follows nested values."""
    return bool({"json", "yaml", "jsonargparse"} & {*Path(file).parts}) or Path(file).name == "copy.py"


def _library(file: str) -> str:
    """Name of the library that a file belongs to."""
    parts = Path(file).parts
    place = max((parts.index(name) for name in LIBRARIES if name in parts), default=-2)
    return Path(parts[place + 1]).stem


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: PyTorch's allocators raise a RuntimeError."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ("out of memory", "allocate memory"))
    )


def _root(error: BaseException) -> BaseException:
    """The exception that others were raised from: jsonargparse raises its own from a constructor's."""
    seen = [error]
    while (cause := seen[-1].__cause__) is not None and cause not in seen and cause.__traceback__ is not None:
        seen.append(cause)
    return seen[-1]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, its cause, that one's cause, and so on."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _user_errors() -> tuple[type[BaseException], ...]:
    """Exceptions whose message is meant for a user; Lightning's only where Lightning has been loaded."""
    from extract.errors import UserError

    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (UserError, lightning.MisconfigurationException) if lightning else (UserError,)
