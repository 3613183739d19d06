"""Conditions as a table for the terminal, and their paired comparisons as text below the heatmaps."""

from typing import Any

from rich.table import Table

from probe.experiments.ablation.comparison import TOP_K, paired_difference, reference_condition
from probe.experiments.ablation.outcomes import GROUPS
from probe.metrics import Estimate

Results = dict[str, Any]


def ablation_table(results: Results, metrics: list[str]) -> Table:
    """One row for each condition: metrics over all prompts and over the baseline-correct ones, and the difference.

    Args:
        results: Of the experiment.
        metrics: Names of the task's metrics.

    """
    first, second = metrics[:2]
    reference = reference_condition(list(results["conditions"]))
    out = Table(title=_title(results), caption=_caption(results, reference))
    headers = ("heads per step", first, second, f"{first}, baseline correct", f"{second}, baseline correct")
    for header in ("ablated", *headers, "compensated", f"{first} − {reference}"):
        out.add_column(header, justify="right" if header != "ablated" else "left")
    for name in results["conditions"]:
        groups = [results["metrics"][group][name] for group in GROUPS]
        everything = {metric: Estimate.of(cell) for metric, cell in groups[0].items()}
        out.add_row(
            name,
            everything["ablated"].value_text(2),
            *(
                Estimate.of(estimates[metric]).text(3, 2, leading_zero=False)
                for estimates in groups
                for metric in (first, second)
            ),
            everything["compensated_static"].value_text(2),
            "" if name == reference else _difference(results, name, reference, first),
        )
    return out


def _title(results: Results) -> str:
    return (
        f"Ablation of {results['llm']['name']} ({results['operator']} operator, KV cache of the {results['keep']} "
        f"pass): {results['prompts']} prompts, {results['baseline_correct']} answered correctly without ablation"
    )


def _caption(results: Results, reference: str) -> str:
    average, store = results["average_dynamic_heads"], results["store"]
    return (
        "[95 % interval: Wilson for shares, bootstrap over prompts for others]; baseline correct: prompts answered "
        "correctly without ablation; compensated: static heads that score after ablation and did not before, most in "
        f"one step, mean over prompts; last column: difference from {reference} on the same prompts (prompts better, "
        f"worse; exact McNemar p); dynamic heads per step in {store['store']}: {average['non_empty']:.2f} over steps "
        f"with any, {average['all']:.2f} over all steps"
    )


def _difference(results: Results, name: str, reference: str, metric: str) -> str:
    pair = paired_difference(results["pairs"]["all"], name, reference, metric)
    p = "" if pair["p"] is None else f"; p {pair['p']:.1g}"
    return f"{pair['difference']:+.2f} (+{pair['more']} −{pair['less']}{p})"


def comparison_text(results: Results, metrics: list[str]) -> str:
    """One line for each condition but those of a k-sweep: its difference from the reference by both metrics."""
    reference = reference_condition(list(results["conditions"]))
    lines = [
        f"Difference from {reference} on the same {results['prompts']} prompts "
        "(exact McNemar p; 95 % bootstrap interval):"
    ]
    for name in results["conditions"]:
        if name == reference or name.startswith(TOP_K):
            continue
        first, second = (paired_difference(results["pairs"]["all"], name, reference, metric) for metric in metrics[:2])
        difference = Estimate(second["difference"], second["low"], second["high"])
        lines.append(
            f"{name}: {metrics[0]} {first['difference']:+.3f} ({first['more']} prompts better, {first['less']} worse, "
            f"p {first['p']:.2g}), {metrics[1]} {difference.text(3, sign=True)}"
        )
    return "\n".join(lines)
