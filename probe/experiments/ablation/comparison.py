"""Paired comparison of every condition with one reference."""

from typing import Any

from probe.experiments.ablation.conditions import NoAblation

Pair = dict[str, Any]
TOP_K = "dynamic top "
"""How names of `AblateDynamic(top=k)` begin."""


def reference_condition(conditions: list[str]) -> str:
    """The condition that others are compared with: all dynamic heads, else the largest k, else no ablation.

    >>> reference_condition(["none", "dynamic top 5", "dynamic top 10", "static 5"])
    'dynamic top 10'

    """
    tops = [name for name in conditions if name.startswith(TOP_K)]
    return "dynamic" if "dynamic" in conditions else [NoAblation.name, *tops][-1]


def paired_difference(pairs: list[Pair], first: str, second: str, metric: str) -> Pair:
    """The paired comparison of two conditions by a metric, as first minus second.

    >>> pair = {"first": "none", "second": "dynamic", "metric": "accuracy", "difference": 0.5, "low": 0.2, "high": 0.8}
    >>> found = paired_difference([{**pair, "more": 4, "less": 1, "p": 0.375}], "dynamic", "none", "accuracy")
    >>> found["difference"], (found["low"], found["high"]), (found["more"], found["less"])
    (-0.5, (-0.8, -0.2), (1, 4))

    """
    for pair in pairs:
        if pair["metric"] == metric and (pair["first"], pair["second"]) == (first, second):
            return pair
        if pair["metric"] == metric and (pair["first"], pair["second"]) == (second, first):
            negated = {"difference": 0.0 - pair["difference"], "low": 0.0 - pair["high"], "high": 0.0 - pair["low"]}
            return {**pair, **negated, "more": pair["less"], "less": pair["more"]}
    raise KeyError(first, second, metric)
