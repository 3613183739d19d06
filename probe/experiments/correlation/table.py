"""Figs. 4 and 8 in numbers: flat records for results.csv, and the table of the terminal."""

from collections.abc import Mapping
from typing import Any

from probe.experiments.correlation.held_out_cca import DIFFERENCE, KINDS, METRICS
from probe.metrics import Estimate
from probe.results import COMPONENT_1, PAPER_MODEL, TextTable


def correlation_records(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each offset, kind and metric, the difference of hidden states and step number among the kinds."""
    return [
        {
            **{"k": offset["k"], "kind": kind, "metric": metric, **estimate},
            "components": offset["components"],
            **{f"{part}_pairs": count for part, count in offset["pairs"].items()},
        }
        for offset in results["offsets"]
        for kind in (*KINDS, DIFFERENCE)
        for metric, estimate in offset.get(kind, {}).items()
    ]


def correlation_table(results: dict[str, Any], components: int) -> TextTable:
    """Component 1 and the means at each offset, of all kinds, beside the paper's component 1.

    Args:
        results: Of the experiment.
        components: Canonical components that were asked for.

    """
    title = f"Canonical correlation of hidden states and the scores k steps later ({results['target']})"
    columns = ["in sample", "held out", "step number", "within step", "null, shifted", "null, same step"]
    kept = ("held out", "paper", "step number", "null, same step", "null, shifted")
    out = TextTable(title, ["k, components", *columns, "paper"], _caption(results, components), important=kept)
    for offset in results["offsets"]:
        for metric in METRICS:
            first = metric == METRICS[0]
            label = metric.replace("_", " ").removeprefix("component ").removesuffix(" mean")
            cells = [_cell(offset.get(kind, {}).get(metric), kind) for kind in KINDS]
            paper = _paper(results["target"], offset["k"]) if first else ""
            out.add_row(f"k = {offset['k']}, {label}", *cells, paper)
        out.add_section()
    return out


def _cell(estimate: Mapping[str, Any] | None, kind: str) -> tuple[str, ...]:
    """Nulls without their ranges, which the plot shows."""
    if estimate is None or estimate["value"] is None:
        return ("–",)
    found = Estimate.of(estimate)
    return (found.value_text(),) if kind.startswith("null") else found.forms(3, 2)


def _paper(target: str, k: int) -> str:
    return f"{COMPONENT_1[target][k]:.3f}" if k < len(COMPONENT_1[target]) else ""


def _caption(results: dict[str, Any], components: int) -> str:
    samples, fewest = results["samples"], min(offset["components"] for offset in results["offsets"])
    fewer = "" if fewest >= components else f"only {fewest} of {components} components exist at some k; "
    return (
        f"fitted on {samples['train']} training samples, held out: {samples['evaluation']} ({results['evaluation']}); "
        f"[95 % jackknife interval, {results['groups']} groups of samples]; step number: held out, the one-hot step "
        "number in place of the hidden state; within step: held out, deviations of hidden states and scores from their "
        "training means at the step number; nulls: the scores of another sample, from "
        f"a random step on or at the same step, mean of {results['permutations']} permutations; {fewer}"
        f"paper: {PAPER_MODEL}"
    )
