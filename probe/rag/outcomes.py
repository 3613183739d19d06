"""Outcomes of strategies on the same questions: figures with intervals, paired differences, table and picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from probe.metrics import mean_interval, paired
from probe.rag.strategies import Strategy
from probe.results import PAPER_MODEL, TABLE_4, published_rag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Trace = dict[str, Any]
SHARES = ("em", "answered")
PAIRED = ("em", "f1", "first_recall", "recall")


@dataclass(frozen=True)
class RagOutcomes:
    """Traces as arrays.

    Attributes:
        traces: Every run, question by question.
        values: Of each metric, by strategy and question; NaN where a run has none.
        strategies: Their names, in the config's order.
        resamples, seed: Of the bootstrap over questions.

    """

    traces: list[Trace]
    values: dict[str, Float[NDArray[np.float64], "strategy question"]]
    strategies: list[str]
    resamples: int
    seed: int

    @classmethod
    def of(cls, traces: Sequence[Trace], strategies: list[str], resamples: int, seed: int) -> "RagOutcomes":
        """Arrange traces; questions are in sample order, whatever batches and processes ran them."""
        rows = {(trace["sample"], trace["strategy"]): trace["metrics"] for trace in traces}
        samples = sorted({sample for sample, _ in rows})
        values = {
            name: np.array([[rows[sample, label][name] for sample in samples] for label in strategies], np.float64)
            for name in traces[0]["metrics"]
        }
        return cls(sorted(traces, key=lambda t: t["sample"]), values, strategies, resamples, seed)

    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        """Mean of every metric for every strategy, its 95 % interval and its n: runs that have one."""
        return {
            label: {name: self._figure(name, grid[row]) for name, grid in self.values.items()}
            for row, label in enumerate(self.strategies)
        }

    def _figure(self, name: str, values: NDArray[np.float64]) -> dict[str, float]:
        known = values[np.isfinite(values)]
        low, high = mean_interval(known, name in SHARES, self.resamples, self.seed)
        mean = float(known.mean()) if len(known) else float("nan")
        return {"value": mean, "low": low, "high": high, "n": len(known)}

    def pairs(self) -> list[dict[str, Any]]:
        """Every strategy against every later one, on the questions for which both have the metric."""
        found = []
        for name in (name for name in PAIRED if name in self.values):
            grid = self.values[name]
            for a, first in enumerate(self.strategies):
                for b in range(a + 1, len(self.strategies)):
                    both = np.isfinite(grid[a]) & np.isfinite(grid[b])
                    pair = paired(grid[a, both], grid[b, both], self.resamples, self.seed).as_dict()
                    found.append({"first": first, "second": self.strategies[b], "metric": name, **pair})
        return found

    def results(self) -> dict[str, Any]:
        """Every number, in plain values."""
        questions = self.values["f1"].shape[1]
        return {"questions": questions, "strategies": self.figures(), "pairs": self.pairs(), "paper": TABLE_4}

    def records(self) -> list[dict[str, Any]]:
        """One flat row for each run."""
        names = ("sample", "id", "strategy", "stop")
        return [
            {
                **{name: trace[name] for name in names},
                **trace["metrics"],
                "gold": trace["gold"],
                "text": trace["text"],
            }
            for trace in self.traces
        ]

    def table(self, title: str, known: Sequence[Strategy]) -> Table:
        """Answers of the strategies with their intervals, against the first one, and the paper's row."""
        reference = self.strategies[0]
        out = Table(title=title, caption=_caption(reference))
        for header in ("", "EM", "F1", f"F1 against {reference}", "llama3.1-8b"):
            out.add_column(header, justify="right" if header else "left")
        figures, pairs = self.figures(), self.pairs()
        for label, strategy in zip(self.strategies, known, strict=True):
            published = TABLE_4[PAPER_MODEL].get(strategy.paper or "")
            out.add_row(
                label,
                *(_cell(figures[label][name]) for name in ("em", "f1")),
                _against(pairs, reference, label),
                "" if published is None else f"{published[0]:.3f} / {published[1]:.3f}",
            )
        return out

    def retrieval_table(self) -> Table:
        """What the strategies made visible, and at what cost."""
        out = Table(title="What became visible", caption=RETRIEVAL)
        for header in ("", "first recall", "by chance", "recall", "precision", "visible", "retrievals", "tokens run"):
            out.add_column(header, justify="right" if header else "left")
        for label, cells in self.figures().items():
            out.add_row(
                label,
                _cell(cells["first_recall"]),
                _bare(cells["first_chance"], 2),
                _cell(cells["recall"]),
                *(_bare(cells[name], digits) for name, digits in COLUMNS.items()),
            )
        return out

    def plots(self) -> "dict[str, Figure]":
        """F1 and recall of the strategies with their intervals."""
        from matplotlib.figure import Figure

        figures = self.figures()
        drawn = Figure(figsize=(9, 0.9 + 0.38 * len(self.strategies)), layout="constrained")
        places = np.arange(len(self.strategies))[::-1]
        for number, (name, title) in enumerate((("f1", "F1"), ("first_recall", "recall of the first retrieval"))):
            axes = drawn.add_subplot(1, 2, number + 1)
            cells = [figures[label][name] for label in self.strategies]
            axes.hlines(places, [c["low"] for c in cells], [c["high"] for c in cells], color="#8aa4c8", linewidth=4)
            axes.plot([c["value"] for c in cells], places, "o", color="#1f4e8c", clip_on=False)
            if name == "first_recall":
                chance = [figures[label]["first_chance"]["value"] for label in self.strategies]
                axes.plot(chance, places, "|", color="#b3541e", markersize=11, label="by chance", clip_on=False)
                axes.legend(loc="lower left")
            axes.set_yticks(places, self.strategies if number == 0 else [""] * len(places))
            axes.set_xlabel(f"{title} (95 % interval)")
            axes.set_xlim(left=0)
            axes.grid(axis="x", alpha=0.3)
        drawn.suptitle(f"Masked dynamic RAG, {self.values['f1'].shape[1]} questions")
        return {"strategies": drawn}


@dataclass(frozen=True)
class RagResults:
    """Masked RAG as an experiment (see `probe.results.Experiment`).

    Attributes:
        results: Settings and metrics.
        outcomes: Of the strategies.
        title: Of the table.
        strategies: As they ran.

    """

    results: dict[str, Any]
    outcomes: RagOutcomes
    title: str
    strategies: Sequence[Strategy]
    experiment: str = "rag"

    def records(self) -> list[dict[str, Any]]:
        """One row for each run of a strategy on a question."""
        return self.outcomes.records()

    def table(self) -> Group:
        """Answers, retrieval, and Table 4 as published."""
        answers = self.outcomes.table(self.title, self.strategies)
        return Group(answers, self.outcomes.retrieval_table(), published_rag())

    def plots(self) -> "dict[str, Figure]":
        """F1 and recall by strategy."""
        return self.outcomes.plots()


COLUMNS = {"precision": 2, "visible": 0, "retrievals": 1, "forward_tokens": 0}
"""What is tabled without an interval, and its digits."""
RETRIEVAL = (
    "recall: share of supporting-fact tokens within the windows; by chance: within as many tokens of the context drawn "
    "at random; precision: share of the windows' tokens that are such; a mean over a question's retrievals (first: its "
    "first alone), then over questions with any; visible: context tokens; tokens run: forward, everything counted, as "
    "if the strategy ran alone"
)


def _caption(reference: str) -> str:
    return (
        "[95 % interval: Wilson for EM, bootstrap over questions for others]; "
        f"against {reference}: mean difference on the same questions, McNemar's p of EM; "
        "llama3.1-8b: the paper's EM / F1"
    )


def _cell(figure: dict[str, float]) -> str:
    if not figure["n"]:
        return ""
    low, high = (f"{figure[bound]:.2f}".removeprefix("0") for bound in ("low", "high"))
    return f"{figure['value']:.3f} [{low}, {high}]"


def _bare(figure: dict[str, float], digits: int) -> str:
    return f"{figure['value']:,.{digits}f}" if figure["n"] else ""


def _against(pairs: list[dict[str, Any]], reference: str, label: str) -> str:
    """The label's metrics minus the reference's."""
    mine = {pair["metric"]: pair for pair in pairs if (pair["first"], pair["second"]) == (reference, label)}
    if not mine:
        return ""
    f1, em = mine["f1"], mine["em"]
    low, high = 0.0 - f1["high"], 0.0 - f1["low"]
    return f"{0.0 - f1['difference']:+.3f} [{low:+.2f}, {high:+.2f}], p {em['p']:.2g}"
