"""Conditions of claim 2 as a table, and the paired comparison as lines of text."""

from typing import Any

from rich.table import Table

from probe.experiments.ablation.conditions import NoAblation
from probe.experiments.ablation.outcomes import Outcomes

Results = dict[str, Any]


def outcome_table(results: Results, outcomes: Outcomes) -> Table:
    """One row for each condition: figures over all prompts, over the solved ones, and against the reference."""
    first, second = outcomes.metrics[:2]
    reference = reference_condition(outcomes.conditions)
    out = Table(title=_title(results), caption=_caption(results, reference))
    for header in ("ablated", "heads a step", first, second, f"{first}, solved", f"{second}, solved"):
        out.add_column(header, justify="right" if header != "ablated" else "left")
    out.add_column("compensated", justify="right")
    out.add_column(f"{first} against {reference}", justify="right")
    for name in outcomes.conditions:
        all_, solved = (results["figures"][group][name] for group in ("all", "solved"))
        out.add_row(
            name,
            f"{all_['ablated']['value']:.2f}",
            *(_cell(figures[metric]) for figures in (all_, solved) for metric in (first, second)),
            f"{all_['compensated_static']['value']:.2f}",
            _against(results["pairs"]["all"], name, reference, first),
        )
    return out


def _title(results: Results) -> str:
    return (
        f"Ablation of {results['llm']['name']} ({results['operator']} operator, {results['keep']} keys kept): "
        f"{results['prompts']} prompts, {results['solved']} solved without ablation"
    )


def _caption(results: Results, reference: str) -> str:
    average, store = results["average_dynamic_heads"], results["store"]
    return (
        "[95 % interval: Wilson for shares, bootstrap over prompts for others]; solved: prompts that the unmasked "
        "model solves; compensated: static heads that score after ablation and did not before, most at a step, mean "
        f"over prompts; against {reference}: difference, prompts won and lost, exact McNemar p on the same prompts; "
        f"dynamic heads a step in {store['store']}: {average['non_empty']:.2f} where there are any, "
        f"{average['all']:.2f} over all steps"
    )


def _cell(figure: dict[str, float]) -> str:
    low, high = (f"{figure[bound]:.2f}".removeprefix("0") for bound in ("low", "high"))
    return f"{figure['value']:.3f} [{low}, {high}]"


def reference_condition(conditions: list[str]) -> str:
    """What the others are compared with: all dynamic heads, else the most of them, else none."""
    tops = [name for name in conditions if name.startswith("dynamic top")]
    return "dynamic" if "dynamic" in conditions else [NoAblation.name, *tops][-1]


def pair_of(pairs: list[dict[str, Any]], first: str, second: str, metric: str) -> dict[str, Any]:
    """A pair in the order asked for."""
    for pair in pairs:
        if pair["metric"] == metric and (pair["first"], pair["second"]) == (first, second):
            return pair
        if pair["metric"] == metric and (pair["first"], pair["second"]) == (second, first):
            turned = {"difference": 0.0 - pair["difference"], "low": 0.0 - pair["high"], "high": 0.0 - pair["low"]}
            return {**pair, **turned, "more": pair["less"], "less": pair["more"]}
    raise KeyError(first, second, metric)


def _against(pairs: list[dict[str, Any]], name: str, reference: str, metric: str) -> str:
    if name == reference:
        return ""
    pair = pair_of(pairs, name, reference, metric)
    p = "" if pair["p"] is None else f", p {pair['p']:.1g}"
    return f"{pair['difference']:+.2f} (+{pair['more']} −{pair['less']}{p})"


def pair_lines(results: Results, outcomes: Outcomes) -> str:
    """Every condition of the list against the reference, by both metrics, on all prompts."""
    reference = reference_condition(outcomes.conditions)
    names = [name for name in outcomes.conditions if name != reference and not name.startswith("dynamic top")]
    lines = [f"Against {reference}, on the same {results['prompts']} prompts (McNemar's exact p; 95 % bootstrap):"]
    for name in names:
        first, second = (pair_of(results["pairs"]["all"], name, reference, metric) for metric in outcomes.metrics[:2])
        lines.append(
            f"{name}: {outcomes.metrics[0]} {first['difference']:+.3f} (won {first['more']}, lost {first['less']}, "
            f"p {first['p']:.2g}), {outcomes.metrics[1]} {second['difference']:+.3f} "
            f"[{second['low']:+.3f}, {second['high']:+.3f}]"
        )
    return "\n".join(lines)
