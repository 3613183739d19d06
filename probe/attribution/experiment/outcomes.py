"""Metrics of each attribution method on the same answers: means with intervals, and paired comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Group

from probe.metrics import Bootstrap, Estimate, compare_conditions, mean_interval
from probe.results import TextTable, Trial, comparison_tables

METRICS = {
    "lds": "LDS",
    "largest_drop_share": "share of largest drop",
    "planted_rank": "rank of answer's source",
    "precision": "precision",
    "recall": "recall",
}
"""Metrics of the table, and their headers; drops in log-probability follow."""
COSTS = ("runs", "forward_tokens", "forward_ratio")
"""Counts of the trials that are no metrics."""
GROUPS = ("all", "correct")
"""All answers, and those that hold the gold answer."""
Values = Float[np.ndarray, "answer"]


@dataclass(frozen=True)
class AttributionOutcomes:
    """Trials as arrays, NaN where an answer has no value.

    Attributes:
        methods: Names, in the order of the config; others are compared with the first.
        values: Of each metric and cost, by method, for each answer.
        correct: Whether each answer holds the gold answer.

    """

    methods: list[str]
    values: dict[str, dict[str, Values]]
    correct: Bool[np.ndarray, "answer"]

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "AttributionOutcomes":
        """Arrange trials by method and answer; answers are in sample order, whatever batches ran them.

        >>> metrics = {"lds": 0.5, "runs": 0}
        >>> trials = [{"sample": 0, "method": name, "correct": 1.0, "metrics": metrics} for name in ("a", "b")]
        >>> AttributionOutcomes.of(trials).values["lds"]
        {'a': array([0.5]), 'b': array([0.5])}

        """
        rows = {(trial["sample"], trial["method"]): trial for trial in trials}
        samples, methods = sorted({sample for sample, _ in rows}), list(dict.fromkeys(name for _, name in rows))
        values = {
            metric: {
                # A metric that is not defined for an answer is null in its trial.
                name: np.array([rows[sample, name]["metrics"][metric] for sample in samples], np.float64)
                for name in methods
            }
            for metric in trials[0]["metrics"]
        }
        correct = np.array([rows[sample, methods[0]]["correct"] == 1 for sample in samples], np.bool_)
        return cls(methods, values, correct)

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.correct)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, without the costs."""
        return [name for name in self.values if name not in COSTS]

    def groups(self) -> dict[str, Bool[np.ndarray, "answer"]]:
        """The answers of each of `GROUPS`."""
        return dict(zip(GROUPS, (np.ones(len(self), dtype=np.bool_), self.correct), strict=True))

    def estimates(
        self, chosen: Bool[np.ndarray, "answer"], bootstrap: Bootstrap
    ) -> dict[str, dict[str, dict[str, float | None]]]:
        """Mean of every metric and cost of each method over the chosen answers that have one, with interval and n."""
        return {
            method: {name: _mean(values[method][chosen], bootstrap) for name, values in self.values.items()}
            for method in self.methods
        }

    def pairs(self, chosen: Bool[np.ndarray, "answer"], bootstrap: Bootstrap) -> list[dict[str, Any]]:
        """Paired comparison of every two methods on the chosen answers; Holm's correction for those with the first."""
        return [
            pair
            for name in self.metrics
            for pair in compare_conditions(
                {method: values[chosen] for method, values in self.values[name].items()},
                name,
                self.methods[0],
                bootstrap,
            )
        ]


def _mean(values: Values, bootstrap: Bootstrap) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if len(known) else float("nan")
    return Estimate(mean, *mean_interval(known, share=False, bootstrap=bootstrap), len(known)).as_dict()


def attribution_table(results: dict[str, Any]) -> Group:
    """Methods by metric with their intervals and costs, and the paired differences from the first method.

    Args:
        results: Of the experiment.

    """
    metrics = results["metrics"]["all"]
    methods, first = list(metrics), next(iter(metrics.values()))
    shown = {**METRICS, **{name: f"drop of top {name[5:]}" for name in first if name.startswith("drop_")}}
    columns = ["method", "runs", *shown.values(), "forward tokens / plain"]
    out = TextTable(_title(results), columns, _caption(results), important=["LDS", "runs", *list(shown.values())[1:]])
    for name in methods:
        found = {metric: Estimate.of(cell) for metric, cell in metrics[name].items()}
        cells = (found[metric].forms(3, 2, leading_zero=False) for metric in shown)
        out.add_row(name, found["runs"].value_text(0), *cells, found["forward_ratio"].value_text(2))
    return Group(out, *comparison_tables(results["pairs"]["all"], methods[0], methods, list(shown)[:3], "answers"))


def _title(results: dict[str, Any]) -> str:
    given = "given" if results["given_answers"] else "generated"
    return (
        f"Attribution of {results['answers']} {given} answers of {results['llm']['name']} to {results['unit']} "
        f"sources, {results['correct']} with the gold answer"
    )


def _caption(results: dict[str, Any]) -> str:
    evaluation, empty = results["evaluation"], results["empty_answers"]
    return (
        "[95 % bootstrap interval over answers]; LDS: Spearman correlation of predicted and true log-probability over "
        f"{evaluation['held_out']} ablations that no method uses; share of largest drop: leave-one-out drop of the top "
        "source, by the largest; drop of top k: fall of log-probability without the top k sources, in nats; precision "
        f"and recall: top {evaluation['cited']} sources as supporting facts"
        + (f"; {empty} empty answers are left out" if empty else "")
    )
