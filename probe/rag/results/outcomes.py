"""Metrics of strategies on the same questions, with intervals and paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probe.metrics import Bootstrap, Estimate, compare_conditions, mean_interval
from probe.rag.results.trace import Trace
from probe.results import TABLE_4

PROPORTIONS = ("em", "answered", "em_last", "contains", "em_forced")
"""Metrics that are 0 or 1 for each question."""
OTHER_GRADES = ("answered", "contains", "em_last", "f1_last", "em_forced", "f1_forced")
"""Metrics of an answer beside EM and F1 after the marker."""
SHOWN_METRICS = ("em", "f1", "first_recall", "recall")
"""Metrics whose paired differences are shown in the terminal."""
PAIRED_METRICS = (*SHOWN_METRICS, *OTHER_GRADES)
"""Metrics that strategies are compared by."""


@dataclass(frozen=True)
class RagOutcomes:
    """Metrics of finished runs as arrays.

    Attributes:
        traces: Every run, question by question.
        values: Each metric, by strategy and question; NaN where a run has none.
        strategies: Their names, in the config's order.
        bootstrap: Over questions, for the intervals.

    """

    traces: list[Trace]
    values: dict[str, Float[np.ndarray, "strategy question"]]
    strategies: list[str]
    bootstrap: Bootstrap

    @classmethod
    def of(cls, traces: Sequence[Trace], strategies: list[str], bootstrap: Bootstrap) -> "RagOutcomes":
        """From traces; questions are in sample order, whatever batches and processes ran them.

        A metric that some traces lack, since an earlier version wrote them, is left out.
        """
        rows = {(trace["sample"], trace["strategy"]): trace["metrics"] for trace in traces}
        samples = sorted({sample for sample, _ in rows})
        values = {
            name: np.array([[rows[sample, label][name] for sample in samples] for label in strategies], np.float64)
            for name in traces[0]["metrics"]
            if all(name in trace["metrics"] for trace in traces)
        }
        return cls(sorted(traces, key=lambda trace: trace["sample"]), values, strategies, bootstrap)

    @property
    def questions(self) -> int:
        """Number of questions."""
        return int(self.values["f1"].shape[1])

    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Mean of each metric by strategy, with its 95 % interval and n, the number of runs that have the metric.

        Intervals: Wilson for proportions, else the bootstrap over questions.
        """
        return {
            label: {name: self._mean(name, grid[row]) for name, grid in self.values.items()}
            for row, label in enumerate(self.strategies)
        }

    def _mean(self, name: str, values: NDArray[np.float64]) -> dict[str, Any]:
        known = values[np.isfinite(values)]
        low, high = mean_interval(known, name in PROPORTIONS, self.bootstrap)
        mean = float(known.mean()) if len(known) else float("nan")
        return Estimate(mean, low, high, len(known)).as_dict()

    def pairs(self) -> list[dict[str, Any]]:
        """Paired difference of each strategy and every later one, on the questions for which both have the metric.

        Comparisons with the reference, the first strategy, have Holm's correction, for each metric.
        """
        found = list[dict[str, Any]]()
        for name in (name for name in PAIRED_METRICS if name in self.values):
            values = dict(zip(self.strategies, self.values[name], strict=True))
            found += compare_conditions(values, name, self.strategies[0], self.bootstrap)
        return found

    def results(self) -> dict[str, Any]:
        """Every number, in plain values, beside the paper's Table 4."""
        return {"questions": self.questions, "strategies": self.metrics(), "pairs": self.pairs(), "paper": TABLE_4}

    def records(self) -> list[dict[str, Any]]:
        """One flat row for each run."""
        names = ("sample", "id", "strategy", "stop")
        return [
            {
                **{name: trace[name] for name in names},
                **trace["metrics"],
                "gold": trace["gold"],
                "text": trace["text"],
                **{name: trace[name] for name in ("continuation",) if name in trace},
            }
            for trace in self.traces
        ]
