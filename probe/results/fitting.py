"""Fitting a table to the width of a terminal: shorter cells, fewer columns, then names on two lines."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from extract.utils import DataConsole, printable

GAP = 2
"""Spaces between two columns."""
NAME_SHARE, LEAST_NAME = 0.4, 8
"""Largest share of the width that names may take before they are broken, and characters that they always may."""
MOST_LINES = 2
"""Lines of a cell."""
_MEASURE = DataConsole()


@dataclass(frozen=True)
class Column:
    """A column of values.

    Attributes:
        header: Its title.
        cells: The forms of each cell, from the longest to the shortest.

    """

    header: str
    cells: list[tuple[str, ...]]

    @property
    def shortest(self) -> int:
        """Level at which every cell has its shortest form."""
        return max(map(len, self.cells), default=1) - 1

    def texts(self, level: int) -> list[str]:
        """Every cell in its form of a level; a cell of fewer forms in its shortest."""
        return [forms[min(level, len(forms) - 1)] for forms in self.cells]

    def width(self, level: int) -> int:
        """Characters that the cells need at a level, and the title on two lines."""
        return max([least_width([self.header]), *map(text_width, self.texts(level))])


@dataclass(frozen=True)
class Fit:
    """How a table is shown.

    Attributes:
        name_width: Characters of the column of names.
        levels: Level of each column that is shown, by its place.
        widths: Characters of each of them.

    """

    name_width: int
    levels: dict[int, int]
    widths: dict[int, int]


def fit(names: Sequence[str], columns: Sequence[Column], order: Sequence[int], width: int) -> Fit:
    """The most of a table that a width has room for.

    A name keeps its line if all columns fit beside it, or if it takes at most `NAME_SHARE` of the width. The most
    important column keeps its short interval; the others get their shortest form, most important first, until one
    does not fit; what room is left goes to longer forms.

    Args:
        names: Of the rows, with the title of their column.
        columns: The others.
        order: Places of the columns, the most important first.
        width: Characters of a line.

    >>> scores = Column("score", [("0.8293 [0.818, 0.840]", "0.8293")])
    >>> fit(["row"], [scores], [0], width=40).levels, fit(["row"], [scores], [0], width=20).levels
    ({0: 0}, {0: 1})

    """
    longest = max(map(cell_len, names))
    most = max(LEAST_NAME, int(width * NAME_SHARE))
    levels = _grant(columns, order, width - longest)
    if longest > most and len(levels) < len(columns):
        longest = min(most, least_width(names))
        levels = _grant(columns, order, width - longest)
    if not order:
        return Fit(min(longest, width), {}, {})
    levels = levels or {order[0]: columns[order[0]].shortest}
    room = width - longest - GAP
    return Fit(longest, levels, {place: min(room, columns[place].width(level)) for place, level in levels.items()})


def _grant(columns: Sequence[Column], order: Sequence[int], room: int) -> dict[int, int]:
    """Levels of the columns that fit; empty if none does."""
    levels: dict[int, int] = {}

    def granted(wanted: dict[int, int]) -> bool:
        tried = levels | wanted
        if sum(columns[place].width(level) + GAP for place, level in tried.items()) > room:
            return False
        levels.update(wanted)
        return True

    for number, place in enumerate(order):
        if not granted({place: columns[place].shortest}):
            break
        if number == 0:
            _lengthen(columns, place, granted)
    for place in [place for place in order if place in levels]:
        _lengthen(columns, place, granted)
    granted(dict.fromkeys(levels, 0))  # full forms for all or none, so that digits are alike
    return levels


def _lengthen(columns: Sequence[Column], place: int, granted: Callable[[dict[int, int]], bool]) -> None:
    """Give a column the longest but full form that fits."""
    any(granted({place: level}) for level in range(min(1, columns[place].shortest), columns[place].shortest))


def text_width(text: str) -> int:
    """Characters of the longest line."""
    return max(map(cell_len, text.split("\n")))


def least_width(texts: Sequence[str]) -> int:
    """The least number of characters on which every text takes two lines at most, broken between words.

    >>> least_width(["heads per step", "accuracy"])
    8

    """
    return max(map(_least_width, texts))


def _least_width(text: str) -> int:
    words = text.split()
    if not words:
        return 0
    ends = (cell_len(" ".join(words[:count])) for count in range(1, len(words) + 1))
    starts = (cell_len(" ".join(words[count:])) for count in range(1, len(words) + 1))
    return min(map(max, zip(ends, starts, strict=True)))


def broken(text: str, width: int, suffix: str = "") -> str:
    r"""A text on two lines at most; what does not fit is left out of its middle.

    Args:
        text: In one line.
        width: Characters of a line.
        suffix: Kept at its end.

    >>> broken("random 2, 5 sets from seed 0", 16), broken("supercalifragilistic", 6)
    ('random 2, 5 sets\nfrom seed 0', 'superc\nal…tic')

    """
    sizes = [cell_len(text), *range(MOST_LINES * width - cell_len(suffix), 0, -1)]
    for size in sizes:
        lines = [str(line).rstrip() for line in Text(_shortened(text, size) + suffix).wrap(_MEASURE, width)]
        if len(lines) <= MOST_LINES:
            return "\n".join(lines)
    return set_cell_size(suffix, width)


def _shortened(text: str, size: int) -> str:
    """A text of at most so many characters: its beginning, an ellipsis, and its end."""
    if cell_len(text) <= size:
        return text
    end = (size - 1) // 3
    start = set_cell_size(text, size - 1 - end)
    return f"{start}…{_last(text, end)}"


def _last(text: str, size: int) -> str:
    """The end of a text, of at most so many characters."""
    return set_cell_size(text[::-1], size)[::-1].strip()


def distinct(names: Sequence[str], width: int | None = None) -> list[str]:
    """Names as they are shown, no two of them alike: repeated ones get a number.

    Args:
        names: As recorded.
        width: Characters of their column, on two lines at most; None for any number.

    >>> distinct(["static", "static", "none"])
    ['static', 'static (2)', 'none']

    """
    found: dict[str, str] = {}
    for name in map(one_line, names):
        suffixes = itertools.chain([""], (f" ({number})" for number in itertools.count(2)))
        texts = (name + suffix if width is None else broken(name, width, suffix) for suffix in suffixes)
        text = next(text for text in texts if text.replace("\n", " ") not in found)
        found[text.replace("\n", " ")] = text
    return list(found.values())


def one_line(text: str) -> str:
    """Printable text in one line, words one space apart."""
    return " ".join(printable(text, keep="\n\t").split())
