"""Results of grounding as tables of the terminal, and a plot."""

from math import isnan
from typing import TYPE_CHECKING, Any

from rich.console import Group

from probe.attribution.grounding.outcomes import GROUPS, LEVELS
from probe.attribution.grounding.scores import BASELINES, SCORES
from probe.metrics import Estimate, difference_text
from probe.results import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^v"


def grounding_tables(results: dict[str, Any]) -> Group:
    """Areas of answers and of tokens by group, differences from the baselines, and thresholds.

    Args:
        results: Of the experiment.

    """
    return Group(*(_areas(results, level) for level in LEVELS), _differences(results), _thresholds(results))


def _areas(results: dict[str, Any], level: str) -> TextTable:
    counts = {group: results["classes"][group][level] for group in GROUPS}
    headers = [f"{group} ({one['positive']} / {one['negative']})" for group, one in counts.items()]
    title = (
        f"AUROC of grounding, {level}s of {results['llm']['name']}: {counts['all']['questions']} held-out of "
        f"{results['questions']} questions"
    )
    caption = (
        "(grounded / not grounded); [95 % bootstrap interval over questions]; removed: with against without evidence; "
        "contradiction: another answer in the context; stated elsewhere, not stated: all grounded ones against those "
        "not grounded whose text the context has, or has not"
    )
    out = TextTable(title, ["score", *headers], caption if level == LEVELS[-1] else "")
    for name in (*SCORES, *BASELINES):
        found = [Estimate.of(_known(results["auroc"][group][level][name])) for group in GROUPS]
        out.add_row(name, *(one.forms(3, 2, leading_zero=False) for one in found))
        if name == list(SCORES)[-1]:
            out.add_section()
    return out


def _known(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell of results.json, in which a value that is not defined is null."""
    return cell if cell["value"] is not None else {**cell, "value": float("nan")}


def _differences(results: dict[str, Any]) -> TextTable:
    caption = (
        "difference in AUROC of all held-out answers [95 % bootstrap interval over questions]; p: DeLong's test with "
        "answers clustered by question; Holm: corrected for the cells of the row"
    )
    out = TextTable("Difference from the baselines", ["score", *BASELINES], caption)
    pairs = {(pair["first"], pair["second"]): pair for pair in results["pairs"]["all"]["answer"]}
    for name in SCORES:
        out.add_row(name, *(difference_text(pairs[name, baseline]) for baseline in BASELINES))
    return out


def _thresholds(results: dict[str, Any]) -> TextTable:
    title = f"Thresholds of tokens, chosen on {results['training_questions']} training questions by Youden's index"
    out = TextTable(title, ["score", "threshold", "recall of grounded", "recall of others"], "on held-out questions")
    first = next(iter(SCORES))
    rows = {**results["thresholds"], f"{first}, default": results["default_threshold"]}
    for name, found in rows.items():
        cells = [found[key] and Estimate.of(_known(found[key])) for key in ("recall_grounded", "recall_others")]
        threshold = found["threshold"]
        shown = "" if threshold is None or isnan(threshold) else f"{threshold:.3f}"
        out.add_row(name, shown, *(one.forms(3, 2, leading_zero=False) if one else "" for one in cells))
    return out


def plot_auroc(results: dict[str, Any]) -> "Figure":
    """Area under the ROC curve of each score for answers, by group, with intervals.

    Args:
        results: Of the experiment.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis, names = figure.subplots(), [*SCORES, *BASELINES]
    for number, group in enumerate(GROUPS):
        cells = [_known(results["auroc"][group]["answer"][name]) for name in names]
        values = [cell["value"] for cell in cells]
        # A value without an interval has bars of no length.
        bars = [[abs((cell[bound] or cell["value"]) - cell["value"]) for cell in cells] for bound in ("low", "high")]
        places = [place + 0.14 * (number - 2) for place in range(len(names))]
        axis.errorbar(values, places, xerr=bars, fmt=MARKERS[number], label=group, capsize=2, markersize=4)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.axvline(0.5, linewidth=0.8, color="grey", linestyle=":")
    axis.set_xlabel("AUROC, grounded against other answers (95 % interval over questions)")
    axis.set_title(f"{results['questions']} questions, {results['llm']['name']}", fontsize=9)
    figure.legend(loc="outside right upper", fontsize=7)
    return figure
