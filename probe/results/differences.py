"""Paired differences from one reference as tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from probe.metrics import difference_text, paired_difference

CAPTION = (
    "mean difference on the same {units} [95 % bootstrap interval]; p of this metric: paired sign-flip permutation "
    "test, which for a metric of 0 and 1 is the exact McNemar test; Holm: corrected for the rows of the column"
)


def comparison_tables(
    pairs: Sequence[dict[str, Any]], reference: str, conditions: Sequence[str], metrics: Sequence[str], units: str
) -> list[Table]:
    """One table, none if there is nothing to compare: the difference of each condition from the reference.

    A cell is the difference by a metric, with interval, p and Holm's p.

    Args:
        pairs: Records of `probe.metrics.compare_conditions`.
        reference: The condition that others are compared with.
        conditions: All of them.
        metrics: Names of the metrics; a cell of a condition without a metric is empty.
        units: What is compared, for the caption: `prompts` or `questions`.

    """
    out = Table(title=f"Difference from {reference}", caption=CAPTION.format(units=units))
    for header in ("", *metrics):
        out.add_column(header, justify="right" if header else "left")
    others = [name for name in conditions if name != reference]
    for name in others:
        out.add_row(name, *(_text(pairs, name, reference, metric) for metric in metrics))
    return [out] if others else []


def _text(pairs: Sequence[dict[str, Any]], name: str, reference: str, metric: str) -> str:
    pair = paired_difference(pairs, name, reference, metric)
    return difference_text(pair) if pair["n"] else ""
