"""Table 4: masked dynamic RAG by strategies, and the traces of its questions."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from extract.errors import UserError
from probe.report.views import EMPTY, Cell, TableView, View, measured

PAPER = {
    "dynamic": (0.456, 0.5586),
    "static": (0.398, 0.5098),
    "dynamic random": (0.272, 0.3670),
    "fixed random": (0.272, 0.3763),
    "w/o RAG": (0.252, 0.3257),
}
"""EM and F1 of llama3.1-8b."""
COLUMNS = {
    "em": "exact match",
    "f1": "F1",
    "recall": "evidence seen, recall",
    "precision": "precision",
    "visible": "share of the context visible",
    "retrievals": "retrievals",
    "forward_tokens": "tokens run",
}


def takes(record: dict[str, Any]) -> bool:
    """Results of masked RAG."""
    return "arms" in record


def view(record: dict[str, Any]) -> View:
    """Strategies, beside the paper's."""
    arms = record["arms"]
    shown = [name for name in COLUMNS if any(name in arm for arm in arms.values())]
    rows = []
    for label, arm in arms.items():
        em, f1 = PAPER.get(label, (None, None))
        published = [EMPTY if value is None else Cell(f"{value:.4f}") for value in (em, f1)]
        rows.append((label, [*(_cell(arm, name) for name in shown), *published]))
    columns = [*(COLUMNS[name] for name in shown), "EM, paper, llama3.1-8b", "F1, paper"]
    note = f"{record.get('questions', '?')} questions; in brackets 95 % intervals."
    return View([TableView(columns, rows, note)])


def _cell(arm: Mapping[str, Any], name: str) -> Cell:
    figure = arm.get(name)
    digits = 1 if name in ("retrievals", "forward_tokens") else 3
    return measured(figure, digits, strong=name in ("em", "f1")) if isinstance(figure, Mapping) else EMPTY


def read_traces(path: Path, questions: int) -> list[dict[str, Any]]:
    """The traces of the first questions, each with all its strategies.

    Args:
        path: A run's `rag_traces.jsonl`.
        questions: At most so many.

    """
    grouped: dict[str, dict[str, Any]] = {}
    for trace in _lines(path):
        known = grouped.setdefault(trace["id"], {"id": trace["id"], "arms": []})
        for name in ("question", "gold", "context", "tokens", "evidence"):
            if trace.get(name) is not None:
                known.setdefault(name, trace[name])
        known["arms"].append({key: value for key, value in trace.items() if key not in ("tokens", "evidence")})
        if len(grouped) > questions:
            del grouped[trace["id"]]
            break
    return list(grouped.values())


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open() as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: damaged ({error}); run `lightning test` again") from error
