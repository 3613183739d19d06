"""Grounding: which scores separate answers that come from the context from others."""

from typing import Any

from probe.metrics import Estimate, p_text
from probe.report import EMPTY, Cell, Plot, TableView, View, axis, layout, measured
from probe.report.exhibits.horizontal import horizontal

NOTE = (
    "AUROC of the {level}s of {held_out} held-out questions, of {questions} in all; 95 % bootstrap intervals over "
    "questions. In brackets the numbers of grounded and other {level}s. Removed: answers with against without "
    "evidence. Contradiction: another answer is in the context. Stated elsewhere, not stated: all grounded ones "
    "against those not grounded whose text the context has, or has not."
)
DIFFERENCES = (
    "Difference in AUROC of all answers, with its 95 % bootstrap interval over questions; p: DeLong's test with "
    "answers clustered by question; Holm: corrected for the cells of the row."
)
THRESHOLDS = (
    "Threshold of a token's score, chosen on {training} training questions by Youden's index, and recall of grounded "
    "and of other tokens on the held-out ones."
)


def view(record: dict[str, Any]) -> View:
    """Areas of answers and tokens by group, differences from the baselines, thresholds, and a plot of the areas."""
    tables = [*(_areas(record, level) for level in record["auroc"]["all"]), _differences(record), _thresholds(record)]
    return View(tables, [_dots(record)])


def _areas(record: dict[str, Any], level: str) -> TableView:
    areas = {group: levels[level] for group, levels in record["auroc"].items()}
    counts = {group: record["classes"][group][level] for group in areas}
    headers = [f"{group} ({one['positive']} / {one['negative']})" for group, one in counts.items()]
    rows = [(name, [measured(found[name]) for found in areas.values()]) for name in areas["all"]]
    held_out = record["questions"] - record["training_questions"]
    return TableView(headers, rows, NOTE.format(level=level, held_out=held_out, questions=record["questions"]))


def _differences(record: dict[str, Any]) -> TableView:
    pairs = {(pair["first"], pair["second"]): pair for pair in record["pairs"]["all"]["answer"]}
    scores, baselines = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    rows = [(name, [_difference(pairs[name, other]) for other in baselines]) for name in scores]
    return TableView([f"− {name}" for name in baselines], rows, DIFFERENCES)


def _difference(pair: dict[str, Any]) -> Cell:
    if pair["difference"] is None:
        return EMPTY
    estimate = Estimate(pair["difference"], pair["low"], pair["high"])
    note = ", ".join(filter(None, (estimate.interval_text(3, sign=True), p_text(pair))))
    return Cell(estimate.value_text(3, sign=True), note)


def _thresholds(record: dict[str, Any]) -> TableView:
    found = {**record["thresholds"], f"{next(iter(record['thresholds']))}, default": record["default_threshold"]}
    rows = [
        (
            name,
            [measured({"value": one["threshold"]}), *(measured(one[f"recall_{of}"]) for of in ("grounded", "others"))],
        )
        for name, one in found.items()
    ]
    columns = ["threshold", "recall of grounded", "recall of others"]
    return TableView(columns, rows, THRESHOLDS.format(training=record["training_questions"]))


def _dots(record: dict[str, Any]) -> Plot:
    areas = {name: cell for name, cell in record["auroc"]["all"]["answer"].items() if cell["value"] is not None}
    marker = {"color": "var:--c1", "size": 10}
    dots = {"type": "scatter", "mode": "markers", "marker": marker, **horizontal(areas, "var:--c1")}
    plan = layout(axis("AUROC of answers"), axis("", autorange="reversed"), 110 + 28 * len(areas))
    return Plot("AUROC by score", {"data": [dots], "layout": plan}, "Dots with 95 % intervals")
