"""Table 4: masked dynamic RAG by strategy, and the traces of its questions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.rag import read_traces, seen_note
from probe.report import EMPTY, Cell, Plot, TableView, View, axis, layout, measured
from probe.report.exhibits.differences import differences
from probe.report.exhibits.horizontal import horizontal
from probe.results import PAPER_MODEL, TABLE_4

TRACES = "traces.jsonl"
COLUMNS = {
    "em": ("exact match", 3),
    "f1": ("F1", 3),
    "recall": ("recall", 3),
    "first_recall": ("recall of the first retrieval", 3),
    "first_chance": ("the same by chance", 3),
    "precision": ("precision", 3),
    "visible": ("context tokens visible", 1),
    "retrievals": ("retrievals", 1),
    "forward_tokens": ("forward tokens", 0),
}
"""Columns of the table by metric: title and digits."""
GRADES = {
    "answered": "answers with the marker",
    "contains": "gold answer in the text",
    "em_last": "exact match, else of the last sentence",
    "f1_last": "F1, else of the last sentence",
    "em_forced": "exact match, else of a forced answer",
    "f1_forced": "F1, else of a forced answer",
}
"""Columns of the table of answers that were extracted otherwise."""
GRADES_NOTE = (
    "Exact match and F1 of the table above count an answer without the marker (“So the answer is”) as wrong. Else: of "
    "an answer without it. Forced: the model continues its own answer and the marker."
)


def view(record: dict[str, Any]) -> View:
    """Metrics of the strategies beside the paper's, and a plot of their F1."""
    names = list(record["strategies"])
    labels = {name: COLUMNS[name][0] for name in ("em", "f1", "first_recall")}
    paired = differences(record["pairs"], names[0], names, labels, "questions")
    shown = {name: label for name, label in GRADES.items() if all(name in one for one in record["strategies"].values())}
    if not shown:  # an earlier release
        return View([_table(record), paired], [_bars(record)])
    compared = differences(record["pairs"], names[0], names, shown, "questions")
    return View([_table(record), paired, _grades(record, shown), compared], [_bars(record)])


def _grades(record: dict[str, Any], shown: dict[str, str]) -> TableView:
    rows = [(label, [_cell(metrics[name], 3) for name in shown]) for label, metrics in record["strategies"].items()]
    return TableView(list(shown.values()), rows, GRADES_NOTE)


def _table(record: dict[str, Any]) -> TableView:
    strategies, paper = record["strategies"], TABLE_4[PAPER_MODEL]
    rows = []
    for label, metrics in strategies.items():
        cells = {name: _cell(metrics.get(name), digits) for name, (_, digits) in COLUMNS.items()}
        em, f1 = (Cell(f"{value:.4f}") for value in paper[label]) if label in paper else (EMPTY, EMPTY)
        first = [cells.pop("em"), em, cells.pop("f1"), f1]
        rows.append((label, [*first, *cells.values()]))
    paper_column = f"paper, {PAPER_MODEL}"
    columns = ["exact match", paper_column, "F1", paper_column]
    columns += [title for name, (title, _) in COLUMNS.items() if name not in ("em", "f1")]
    seen = seen_note(record, record["questions"])
    note = (
        f"{seen and f'{seen}. '}{record['questions']} questions; 95 % intervals: Wilson for exact match, else "
        "bootstrap over questions. "
        "Recall: share of the supporting-fact tokens within the windows; precision: share of the windows' tokens that "
        "are supporting-fact tokens; both averaged over a question's retrievals, then over questions with any. By "
        "chance: expected recall of as many tokens sampled at random. The paper's questions are HotpotQA's."
    )
    return TableView(columns, rows, note)


def _cell(estimate: Mapping[str, Any] | None, digits: int) -> Cell:
    return EMPTY if estimate is None or not estimate["n"] else measured(estimate, digits)


def _bars(record: dict[str, Any]) -> Plot:
    estimates = {label: metrics["f1"] for label, metrics in record["strategies"].items()}
    marker = {"color": "var:--c1", "size": 10}
    dots = {"type": "scatter", "mode": "markers", "marker": marker, **horizontal(estimates, "var:--c1")}
    plan = layout(axis("F1", rangemode="tozero"), axis("", autorange="reversed"), 110 + 28 * len(estimates))
    return Plot("F1 by strategy", {"data": [dots], "layout": plan}, "Dots with 95 % intervals")


def questions_of(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first questions of a run with the traces of all their strategies; none where the run wrote no traces.

    Args:
        folder: The run's.
        count: At most so many.

    """
    grouped: dict[str, dict[str, Any]] = {}
    for trace in read_traces(folder / TRACES) if (folder / TRACES).is_file() else ():
        if trace["id"] not in grouped and len(grouped) == count:
            break
        shared = {name: trace[name] for name in ("id", "question", "gold", "context", "evidence")}
        known = grouped.setdefault(trace["id"], {**shared, "run": str(folder), "traces": []})
        known["traces"].append({name: trace[name] for name in ("strategy", "rounds", "text", "stop", "metrics")})
    return list(grouped.values())
