"""Table 4: masked dynamic RAG by strategies, and the traces of its questions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.rag import read_traces
from probe.report import EMPTY, Cell, Figure, TableView, View, axis, layout, measured

TRACES = "traces.jsonl"
COLUMNS = {
    "em": ("exact match", 3),
    "f1": ("F1", 3),
    "recall": ("evidence seen: recall", 3),
    "first_recall": ("of the first retrieval", 3),
    "first_chance": ("by chance", 3),
    "precision": ("precision", 3),
    "visible": ("context tokens visible", 1),
    "retrievals": ("retrievals", 1),
    "forward_tokens": ("tokens run", 0),
}
"""What is tabled, and its digits."""


def takes(record: dict[str, Any]) -> bool:
    """Results of masked RAG."""
    return bool(record["experiment"] == "rag")


def view(record: dict[str, Any]) -> View:
    """Strategies beside the paper's, and their F1."""
    return View([_table(record)], [_bars(record)])


def _table(record: dict[str, Any]) -> TableView:
    strategies, paper = record["strategies"], record["paper"]["llama3.1-8b"]
    reference = next(iter(strategies))
    rows = []
    for label, figures in strategies.items():
        shown = {name: _cell(figures.get(name), digits) for name, (_, digits) in COLUMNS.items()}
        em, f1 = (Cell(f"{value:.4f}") for value in paper[label]) if label in paper else (EMPTY, EMPTY)
        first = [shown.pop("em"), em, shown.pop("f1"), f1, _against(record, reference, label)]
        rows.append((label, [*first, *shown.values()]))
    columns = ["exact match", "paper, llama3.1-8b", "F1", "paper, llama3.1-8b", f"F1 against {reference}"]
    columns += [title for name, (title, _) in COLUMNS.items() if name not in ("em", "f1")]
    note = (
        f"{record['questions']} questions; 95 % intervals: Wilson for exact match, else bootstrap over questions. "
        "recall: share of the facts' tokens within the windows, precision: share of the windows' tokens that are such; "
        "both over a question's retrievals, then over questions with any. By chance: the facts' share within as many "
        "tokens drawn at random. The paper's questions are HotpotQA's."
    )
    return TableView(columns, rows, note)


def _cell(figure: Mapping[str, Any] | None, digits: int) -> Cell:
    return EMPTY if figure is None or not figure["n"] else measured(figure, digits)


def _against(record: dict[str, Any], reference: str, label: str) -> Cell:
    """The label's F1 minus the reference's, on the same questions."""
    for pair in record["pairs"]:
        if (pair["first"], pair["second"], pair["metric"]) == (reference, label, "f1"):
            low, high = 0.0 - pair["high"], 0.0 - pair["low"]
            return Cell(f"{0.0 - pair['difference']:+.3f}", f"[{low:+.3f}, {high:+.3f}]")
    return EMPTY


def _bars(record: dict[str, Any]) -> Figure:
    cells = {label: figures["f1"] for label, figures in record["strategies"].items()}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [cell["value"] for cell in cells.values()],
        "y": list(cells),
        "marker": {"color": "var:--c1", "size": 10},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [cell["high"] - cell["value"] for cell in cells.values()],
            "arrayminus": [cell["value"] - cell["low"] for cell in cells.values()],
            "color": "var:--c1",
        },
        "customdata": [[cell["low"], cell["high"], cell["n"]] for cell in cells.values()],
        "hovertemplate": "%{y}: <b>%{x:.3f}</b> [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "n = %{customdata[2]}<extra></extra>",
    }
    plan = layout(axis("F1", rangemode="tozero"), axis("", autorange="reversed"), 110 + 28 * len(cells))
    return Figure("F1 by strategy", {"data": [dots], "layout": plan}, "Dots with 95 % intervals")


def questions_of(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first questions of a run with the traces of all their strategies; none where the run kept no traces.

    Args:
        folder: The run's.
        count: At most so many.

    """
    grouped: dict[str, dict[str, Any]] = {}
    for trace in read_traces(folder / TRACES) if (folder / TRACES).is_file() else ():
        if trace["id"] not in grouped and len(grouped) == count:
            break
        shared = {name: trace[name] for name in ("id", "question", "gold", "context", "evidence")}
        known = grouped.setdefault(trace["id"], {**shared, "run": str(folder), "arms": []})
        known["arms"].append({name: trace[name] for name in ("strategy", "rounds", "text", "stop", "metrics")})
    return list(grouped.values())
