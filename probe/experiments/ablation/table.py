"""Conditions as a table for the terminal, and their paired comparisons as text below the heatmaps."""

from typing import Any

from rich.console import Group

from probe.experiments.ablation.comparison import TOP_K, reference_condition
from probe.experiments.ablation.outcomes import GROUPS
from probe.metrics import Estimate, difference_text, paired_difference
from probe.results import TextTable, comparison_tables

Results = dict[str, Any]


def ablation_table(results: Results, metrics: list[str]) -> Group:
    """Metrics over all prompts and over the baseline-correct ones, and the paired differences from the reference.

    Args:
        results: Of the experiment.
        metrics: Names of the task's metrics.

    """
    shown = metrics[:2]
    reference = reference_condition(list(results["conditions"]))
    headers = ("heads per step", *shown, *(f"{metric}, baseline correct" for metric in shown))
    columns = ["ablated", *headers, "compensated"]
    out = TextTable(_title(results), columns, _caption(results), important=[shown[0], headers[0], *shown[1:]])
    for name in results["conditions"]:
        groups = [results["metrics"][group][name] for group in GROUPS]
        everything = {metric: Estimate.of(cell) for metric, cell in groups[0].items()}
        out.add_row(
            name,
            everything["ablated"].value_text(2),
            *(
                Estimate.of(estimates[metric]).forms(3, 2, leading_zero=False)
                for estimates in groups
                for metric in shown
            ),
            everything["compensated_static"].value_text(2),
        )
    names = list(results["conditions"])
    return Group(out, *comparison_tables(results["pairs"]["all"], reference, names, shown, "prompts"))


def _title(results: Results) -> str:
    return (
        f"Ablation of {results['llm']['name']} ({results['operator']} operator, KV cache of the {results['keep']} "
        f"pass): {results['prompts']} prompts, {results['baseline_correct']} answered correctly without ablation"
    )


def _caption(results: Results) -> str:
    average, store, matched = results["average_dynamic_heads"], results["store"], results["matched_heads"]
    return (
        "[95 % interval: Wilson for shares, bootstrap over prompts, and over random sets, for others]; baseline "
        "correct: prompts answered correctly without ablation; compensated: static heads that score after ablation and "
        f"did not before, most in one step, mean over prompts; conditions are matched to {matched['average']:.2f} "
        f"heads per step (static.n: {matched['rule']}); dynamic heads per step in {store['store']}, without ablation: "
        f"{average['non_empty']:.2f} over steps with any, {average['all']:.2f} over all steps"
        + (f"; {results['note']}" if results.get("note") else "")
    )


def comparison_text(results: Results, metrics: list[str]) -> str:
    """One line for each condition but those of a k-sweep: its difference from the reference, by two metrics at most."""
    reference = reference_condition(list(results["conditions"]))
    lines = [
        f"Difference from {reference} on the same {results['prompts']} prompts [95 % bootstrap interval], p of the "
        "paired permutation test (McNemar's for 0/1), Holm's correction:"
    ]
    for name in results["conditions"]:
        if name == reference or name.startswith(TOP_K):
            continue
        pairs = results["pairs"]["all"]
        texts = [
            f"{metric} {difference_text(paired_difference(pairs, name, reference, metric))}" for metric in metrics[:2]
        ]
        lines.append(f"{name}: {'; '.join(texts)}")
    return "\n".join(lines)
