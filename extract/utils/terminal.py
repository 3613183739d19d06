"""Text of data in a terminal: without control sequences, and never read as markup."""

import logging
import sys
import warnings
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

REPLACEMENT = "\ufffd"
"""What is shown for a character that a terminal would act on."""


def printable(text: str, keep: str = "") -> str:
    r"""Text of data for a terminal or a plot: control and format characters are replaced, except those in `keep`.

    >>> printable("a\x1b[31mb\u202ec\n", keep="\n")
    'a�[31mb�c\n'

    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else REPLACEMENT for letter in text)


def say(line: object, file: TextIO | None = None) -> None:
    """Print one line about data, by default to stdout."""
    print(printable(str(line)), file=file or sys.stdout, flush=True)


class DataConsole(Console):
    r"""A rich console for tables of data: no text is markup, and control sequences have no effect.

    >>> DataConsole(width=40).print("[/b] [red]\x1b[31m")
    [/b] [red]�[31m

    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; where the output is no terminal, lines keep their length."""
        super().print(*objects, **{"crop": self.is_terminal, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich text of a string, in cells, titles and captions, too."""
        return super().render_str(printable(text, keep="\n"), **options)


def clean_logs(*names: str) -> None:
    """Let loggers and Python's warnings write printable text only.

    Args:
        names: Of the loggers.

    """
    for name in names:
        logger = logging.getLogger(name)
        if _clean not in logger.filters:
            logger.addFilter(_clean)
    if warnings.formatwarning is not _format_warning:
        warnings.formatwarning = _format_warning


def _clean(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage(), keep="\n\t"), ()
    return True


_python_format = warnings.formatwarning


def _format_warning(*args: Any, **options: Any) -> str:
    return printable(_python_format(*args, **options), keep="\n\t")
