"""An exhibit by model: the newest result of each beside the paper's, then every result under its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from probe.report.components import EMPTY, Cell, TableView
from probe.report.exhibits import Exhibit, Shown
from probe.report.models import Model
from probe.report.provenance import counts

TARGETS = {"copy_paste": "copy-paste scores", "reasoning": "reasoning scores"}


@dataclass(frozen=True)
class ByModel:
    """An exhibit's results.

    Attributes:
        exhibit: The exhibit.
        tables: Columns of the models side by side; none for one model.
        groups: Each model with its results, and the index of the first plot of each result.

    """

    exhibit: Exhibit
    tables: list[TableView]
    groups: list[tuple[Model, list[tuple[Shown, int]]]]


def by_model(exhibit: Exhibit, results: Sequence[Shown], first_plot: int) -> ByModel:
    """Compare and group the results of an exhibit, which are in the order of their models.

    Args:
        exhibit: The exhibit.
        results: What it shows.
        first_plot: Index of its first plot in the page.

    """
    indexed = []
    for one in results:
        indexed.append((one, first_plot))
        first_plot += len(one.view.plots)
    groups = [(model, list(group)) for model, group in groupby(indexed, key=lambda pair: pair[0].model)]
    return ByModel(exhibit, comparisons(exhibit, results), groups)


def comparisons(exhibit: Exhibit, results: Sequence[Shown]) -> list[TableView]:
    """A table for each kind of scores that two models or more have results of."""
    targets = list(dict.fromkeys(one.result.record.get("target") for one in results))
    tables = []
    for target in targets:
        newest: dict[Model, Shown] = {}
        for one in results:
            if one.result.record.get("target") == target:
                newest.setdefault(one.model, one)
        if len(newest) > 1:
            of = f", {TARGETS[target]}" if len(targets) > 1 and target in TARGETS else ""
            tables.append(_comparison(exhibit, newest, of))
    return tables


def _comparison(exhibit: Exhibit, newest: dict[Model, Shown], of: str) -> TableView:
    """One row for each row of any model, and the columns that the exhibit compares."""
    views = {model: one.view.tables[0] for model, one in newest.items()}
    cells = {model: dict(view.rows) for model, view in views.items()}
    names = list(dict.fromkeys(name for rows in cells.values() for name in rows))
    columns = [_own(model, view, place, exhibit) for model, view in views.items() for place in exhibit.own]
    first = next(iter(views.values()))
    columns += [_published(first, place) for place in exhibit.published]
    rows = []
    for name in names:
        own = [_cell(rows, name, place) for rows in cells.values() for place in exhibit.own]
        having = next(rows for rows in cells.values() if name in rows)
        rows.append((name, [*own, *(_cell(having, name, place) for place in exhibit.published)]))
    held = "; ".join(f"{model.label}: {counts(one.result.record)}" for model, one in newest.items())
    return TableView(columns, rows, f"The newest result of each model{of}; settings are with each below. {held}.")


def _own(model: Model, view: TableView, place: int, exhibit: Exhibit) -> str:
    return f"{model.label}: {view.columns[place]}" if len(exhibit.own) > 1 else model.label


def _published(view: TableView, place: int) -> str:
    """Title of a column of the paper; with what it publishes where the title repeats."""
    title = view.columns[place]
    return title if view.columns.count(title) == 1 else f"{title}: {view.columns[place - 1]}"


def _cell(rows: dict[str, list[Cell]], name: str, place: int) -> Cell:
    return rows[name][place] if name in rows else EMPTY
