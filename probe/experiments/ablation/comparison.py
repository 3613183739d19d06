"""The condition that all others are compared with."""

from probe.experiments.ablation.conditions import NoAblation

TOP_K = "dynamic top "
"""How names of `AblateDynamic(top=k)` begin."""


def reference_condition(conditions: list[str]) -> str:
    """The condition that others are compared with: all dynamic heads, else the largest k, else no ablation.

    >>> reference_condition(["none", "dynamic top 5", "dynamic top 10", "static 5"])
    'dynamic top 10'

    """
    tops = [name for name in conditions if name.startswith(TOP_K)]
    return "dynamic" if "dynamic" in conditions else [NoAblation.name, *tops][-1]
