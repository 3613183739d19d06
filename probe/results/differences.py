"""Paired differences from one reference as tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from probe.metrics import Estimate, difference_text, p_text, paired_difference
from probe.results.text_table import TextTable

CAPTION = (
    "mean difference on the same {units} [95 % bootstrap interval]; p of this metric: paired sign-flip permutation "
    "test, which for a metric of 0 and 1 is the exact McNemar test; Holm: corrected for the rows of the column"
)


def comparison_tables(
    pairs: Sequence[dict[str, Any]], reference: str, conditions: Sequence[str], metrics: Sequence[str], units: str
) -> list[TextTable]:
    """One table, none if there is nothing to compare: the difference of each condition from the reference.

    A cell is the difference by a metric, with interval, p and Holm's p.

    Args:
        pairs: Records of `probe.metrics.compare_conditions`.
        reference: The condition that others are compared with.
        conditions: All of them.
        metrics: Names of the metrics; a cell of a condition without a metric is empty.
        units: What is compared, for the caption: `prompts` or `questions`.

    """
    out = TextTable(f"Difference from {reference}", ["", *metrics], CAPTION.format(units=units))
    others = [name for name in conditions if name != reference]
    for name in others:
        out.add_row(name, *(_forms(pairs, name, reference, metric) for metric in metrics))
    return [out] if others else []


def _forms(pairs: Sequence[dict[str, Any]], name: str, reference: str, metric: str) -> tuple[str, ...]:
    """In one line; p below the difference; the difference and the corrected p."""
    pair = paired_difference(pairs, name, reference, metric)
    if not pair["n"]:
        return ("",)
    estimate = Estimate(pair["difference"], pair["low"], pair["high"])
    p, corrected = p_text(pair), p_text({"p": None, **{name: pair[name] for name in ("p_holm",) if name in pair}})
    value = estimate.value_text(3, sign=True)
    return difference_text(pair), f"{estimate.text(3, 2, sign=True)}\n{p}".strip(), f"{value}, {corrected or p}"
