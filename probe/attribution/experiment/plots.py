"""Faithfulness of attribution by its cost."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>hd"


def plot_cost(results: dict[str, Any]) -> "Figure":
    """LDS of each method over the tokens of its ablated runs, relative to those of plain generation.

    Args:
        results: Of the experiment.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for number, (name, found) in enumerate(results["metrics"]["all"].items()):
        lds, cost = found["lds"], found["forward_ratio"]["value"]
        # A mean of equal values may differ from its bounds by rounding.
        bars = [[max(0.0, lds["value"] - lds["low"])], [max(0.0, lds["high"] - lds["value"])]]
        axis.errorbar([cost], [lds["value"]], yerr=bars, fmt=MARKERS[number % len(MARKERS)], label=name, capsize=2)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(left=-0.1)
    axis.set_xlabel("tokens of ablated runs / tokens of plain generation")
    axis.set_ylabel("LDS (95 % interval over answers)")
    axis.set_title(f"{results['answers']} answers of {results['llm']['name']}", fontsize=9)
    figure.legend(loc="outside right upper", fontsize=7)
    return figure
