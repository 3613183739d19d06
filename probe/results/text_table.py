"""Tables of experiments for the terminal, fitted to its width; plain text where the output is no terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from probe.results.fitting import GAP, MOST_LINES, Column, Fit, broken, distinct, fit, one_line, text_width

Cell = str | tuple[str, ...]
"""A value, or its forms from the longest to the shortest (see `probe.metrics.Estimate.forms`); `\\n` breaks a line."""


class TextTable:
    r"""A table of the terminal. Its first column names the rows.

    In a terminal no line is wider than the screen, no cell takes more than two lines, and no two rows have the same
    name: intervals are shortened or left out, then the least important columns, as a note below says. Elsewhere, in a
    file or a pipe, it is plain text in full, one row a line.

    Args:
        title: Above it.
        columns: Titles of the columns, that of the names first.
        caption: Below it.
        important: The columns to keep, most important first; the others follow in their order.
        complete: Where all values are, for the note.

    >>> table = TextTable("Answers", ["strategy", "EM", "F1"])
    >>> table.add_row("dynamic", "0.25", "0.31")
    >>> print(*table.plain(), sep="\n")
    Answers
    strategy    EM    F1
    dynamic   0.25  0.31

    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        caption: str = "",
        important: Sequence[str] = (),
        complete: str = "results.json has all",
    ) -> None:
        self.title, self.caption, self.complete = one_line(title), one_line(caption), complete
        first, *others = map(one_line, columns)
        self._first, self._names, self._sections = first, list[str](), set[int]()
        self.columns = [Column(header, []) for header in others]
        known = [others.index(one_line(header)) for header in important]
        self._order = [*known, *(place for place in range(len(others)) if place not in known)]

    def add_row(self, name: str, *cells: Cell) -> None:
        """Add a row of one cell for each column of values."""
        self._names.append(name)
        for column, cell in zip(self.columns, cells, strict=True):
            forms = (cell,) if isinstance(cell, str) else cell
            column.cells.append(tuple(map(_lines, forms)))

    def add_section(self) -> None:
        """End a group of rows."""
        self._sections.add(len(self._names))

    def plain(self) -> Iterator[str]:
        """Lines of plain text: every cell in full, on one line."""
        texts = [[self._first, *distinct(self._names)]]
        texts += [[column.header, *(one_line(text) for text in column.texts(0))] for column in self.columns]
        widths = [max(map(cell_len, column)) for column in texts]
        yield from filter(None, [self.title])
        for number, (name, *cells) in enumerate(zip(*texts, strict=True)):
            if number - 1 in self._sections:
                yield ""
            padded = [_padded(text, width) + text for text, width in zip(cells, widths[1:], strict=True)]
            yield (" " * GAP).join([name + _padded(name, widths[0]), *padded]).rstrip()
        yield from filter(None, [self.caption])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            for line in [*self.plain(), ""]:
                yield Text(line, no_wrap=True, overflow="ignore")
            return
        found = fit([self._first, *distinct(self._names)], self.columns, self._order, options.max_width)
        yield Text(self.title, style="table.title")
        yield self._table(found)
        for line in filter(None, [self._left_out(found), self.caption]):
            yield Text(line, style="table.caption")
        yield Text()

    def _table(self, found: Fit) -> Table:
        """The columns that fit, of fixed widths."""
        out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        out.add_column(broken(self._first, found.name_width), width=found.name_width, vertical="top")
        shown = sorted(found.levels)
        for place in shown:
            width = found.widths[place]
            out.add_column(broken(self.columns[place].header, width), width=width, justify="right")
        texts = [self._shown(place, found) for place in shown]
        rows = zip(distinct(self._names, found.name_width), *texts, strict=True)
        for number, (name, *cells) in enumerate(rows, start=1):
            out.add_row(name, *cells, end_section=number in self._sections)
        return out

    def _shown(self, place: int, found: Fit) -> list[str]:
        """Cells of a column; what is too wide even for a table of this column alone is broken."""
        width = found.widths[place]
        texts = self.columns[place].texts(found.levels[place])
        return [text if text_width(text) <= width else broken(one_line(text), width) for text in texts]

    def _left_out(self, found: Fit) -> str:
        """What a wider terminal would show, and where it is; empty if that is nothing."""
        dropped = [column.header for place, column in enumerate(self.columns) if place not in found.levels]
        bare = [self.columns[place].header for place in sorted(found.levels) if self._lost_interval(place, found)]
        lists = (("not shown", dropped), ("without intervals", bare))
        parts = [f"{what}: {' | '.join(headers)}" for what, headers in lists if headers]
        return f"{'; '.join(parts)} ({self.complete})" if parts else ""

    def _lost_interval(self, place: int, found: Fit) -> bool:
        texts = zip(self.columns[place].texts(0), self.columns[place].texts(found.levels[place]), strict=True)
        return any("[" in full and "[" not in shown for full, shown in texts)


def _lines(text: str) -> str:
    """Printable text; breaks are kept where they make no more lines than a cell may have."""
    lines = text.split("\n")
    return "\n".join(map(one_line, lines)) if len(lines) <= MOST_LINES else one_line(text)


def metrics_table(title: str, metrics: Sequence[Mapping[str, float]]) -> TextTable:
    r"""Metrics that Lightning's trainer returns, one column for each data loader.

    >>> print(*metrics_table("Validation", [{"val/f1": 0.8125, "val/loss": 0.25}]).plain(), sep="\n")
    Validation
    metric     value
    val/f1    0.8125
    val/loss    0.25

    """
    several = [f"data loader {number}" for number in range(len(metrics))]
    out = TextTable(title, ["metric", *(several if len(several) > 1 else ["value"])], complete="the logger has all")
    for name in sorted(set().union(*metrics)):
        out.add_row(name, *(f"{found[name]:.6g}" if name in found else "" for found in metrics))
    return out


def _padded(text: str, width: int) -> str:
    return " " * (width - cell_len(text))
