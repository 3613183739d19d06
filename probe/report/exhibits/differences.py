"""Paired differences from one reference, as a table of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from probe.metrics import Estimate, p_text, paired_difference
from probe.report import EMPTY, Cell, TableView

NOTE = (
    "Difference from {reference} on the same {units}, with its 95 % bootstrap interval; p of this metric: paired "
    "sign-flip permutation test, which for a metric of 0 and 1 is the exact McNemar test; Holm: corrected for the rows "
    "of the column."
)


def differences(
    pairs: Sequence[dict[str, Any]], reference: str, names: Sequence[str], metrics: Mapping[str, str], units: str
) -> TableView:
    """One row for each condition but the reference, one column for each metric.

    Args:
        pairs: The run's paired comparisons.
        reference: What the others are compared with.
        names: All conditions.
        metrics: Labels of the metrics by name.
        units: `prompts` or `questions`.

    """
    rows = [
        (name, [_difference(pairs, name, reference, metric) for metric in metrics])
        for name in names
        if name != reference
    ]
    columns = [f"{label} − {reference}" for label in metrics.values()]
    return TableView(columns, rows, NOTE.format(reference=reference, units=units))


def _difference(pairs: Sequence[dict[str, Any]], name: str, reference: str, metric: str) -> Cell:
    try:
        pair = paired_difference(pairs, name, reference, metric)
    except KeyError:  # an earlier release compared by fewer metrics
        return EMPTY
    if not pair["n"]:
        return EMPTY
    estimate = Estimate(pair["difference"], pair["low"], pair["high"])
    note = ", ".join(filter(None, (estimate.interval_text(3, sign=True), p_text(pair))))
    return Cell(estimate.value_text(3, sign=True), note)
