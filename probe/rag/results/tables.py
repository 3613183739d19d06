"""Tables and plots of masked RAG: answers and retrieval of each strategy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.metrics import Estimate
from probe.rag.results.outcomes import OTHER_GRADES, RagOutcomes
from probe.rag.strategies import Strategy
from probe.results import PAPER_MODEL, TABLE_4, TextTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIGITS = {"precision": 2, "visible": 0, "retrievals": 1, "forward_tokens": 0}
"""Metrics that are tabled without an interval, and their digits."""
GRADES_CAPTION = (
    "answered: share of answers with the marker, without which EM and F1 are 0; contains: the gold answer is in the "
    "text; last: EM and F1 of the answer after the marker or, where it is missing, of the last sentence; forced: or of "
    "what the model generates after its answer and the marker (task.force)"
)
RETRIEVAL_CAPTION = (
    "recall: share of supporting-fact tokens within the windows; by chance: within as many tokens of the context "
    "sampled at random; precision: share of the windows' tokens that belong to supporting facts; mean over a "
    "question's retrievals (first recall: of the first alone), then over questions with any; visible: context tokens; "
    "tokens run: all tokens that the strategy runs forward, as if it ran alone"
)


def answer_table(outcomes: RagOutcomes, title: str, strategies: Sequence[Strategy]) -> TextTable:
    """EM and F1 of the strategies with intervals, and the paper's row."""
    caption = f"[95 % interval: Wilson for EM, bootstrap over questions for others]; {PAPER_MODEL}: the paper's EM / F1"
    out = TextTable(title, ["", "EM", "F1", PAPER_MODEL], caption)
    metrics = outcomes.metrics()
    for label, strategy in zip(outcomes.strategies, strategies, strict=True):
        published = TABLE_4[PAPER_MODEL].get(strategy.paper_column or "")
        out.add_row(
            label,
            *(_with_interval(metrics[label][name]) for name in ("em", "f1")),
            "" if published is None else f"{published[0]:.3f} / {published[1]:.3f}",
        )
    return out


def grades_table(outcomes: RagOutcomes) -> TextTable:
    """Share of answers in the requested form, and metrics of answers extracted otherwise."""
    shown = [name for name in OTHER_GRADES if name in outcomes.values]
    out = TextTable("Answers extracted otherwise", ["", *(name.replace("_", " ") for name in shown)], GRADES_CAPTION)
    for label, cells in outcomes.metrics().items():
        out.add_row(label, *(_with_interval(cells[name]) for name in shown))
    return out


def retrieval_table(outcomes: RagOutcomes) -> TextTable:
    """What the strategies made visible, and what that cost."""
    headers = ["first recall", "by chance", "recall", "precision", "visible", "retrievals", "tokens run"]
    out = TextTable("Retrieval", ["", *headers], RETRIEVAL_CAPTION)
    for label, cells in outcomes.metrics().items():
        out.add_row(
            label,
            _with_interval(cells["first_recall"]),
            _value(cells["first_chance"], 2),
            _with_interval(cells["recall"]),
            *(_value(cells[name], digits) for name, digits in DIGITS.items()),
        )
    return out


def _with_interval(metric: dict[str, Any]) -> tuple[str, ...]:
    return Estimate.of(metric).forms(3, 2, leading_zero=False) if metric["n"] else ("",)


def _value(metric: dict[str, Any], digits: int) -> str:
    return f"{metric['value']:,.{digits}f}" if metric["n"] else ""


def strategy_plots(outcomes: RagOutcomes) -> "dict[str, Figure]":
    """F1 and first recall of the strategies with their intervals, by the plot's name."""
    from matplotlib.figure import Figure

    names, metrics = outcomes.strategies, outcomes.metrics()
    plot = Figure(figsize=(9, 0.9 + 0.38 * len(names)), layout="constrained")
    left, right = plot.subplots(1, 2)
    _plot_metric(left, [metrics[name]["f1"] for name in names], "F1", names)
    recall = [metrics[name]["first_recall"] for name in names]
    chance = [metrics[name]["first_chance"]["value"] for name in names]
    _plot_metric(right, recall, "recall of the first retrieval", [""] * len(names))
    right.plot(chance, _rows(names), "|", color="#b3541e", markersize=11, label="by chance", clip_on=False)
    right.set_xlim(left=0)
    right.legend(loc="lower left")
    plot.suptitle(f"Masked dynamic RAG, {outcomes.questions} questions")
    return {"strategies": plot}


def _rows(names: Sequence[str]) -> list[int]:
    """Heights of the strategies, the first on top."""
    return list(range(len(names)))[::-1]


def _plot_metric(axes: "Axes", cells: list[dict[str, Any]], title: str, labels: list[str]) -> None:
    rows = _rows(labels)
    low, high = (np.array([cell[bound] for cell in cells], dtype=float) for bound in ("low", "high"))
    axes.hlines(rows, low, high, color="#8aa4c8", linewidth=4)
    axes.plot([c["value"] for c in cells], rows, "o", color="#1f4e8c", clip_on=False)
    axes.set_yticks(rows, labels)
    axes.set_xlabel(f"{title} (95 % interval)")
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
