"""Attribution: which sources an answer rests on, by methods compared on the same answers."""

from typing import Any

from probe.attribution.experiment import METRICS
from probe.report import Cell, Plot, TableView, View, axis, layout, measured
from probe.report.exhibits.differences import differences
from probe.report.exhibits.horizontal import horizontal

NOTE = (
    "{answers} {kind} answers, {correct} of them with the gold answer; {unit} sources; 95 % bootstrap intervals over "
    "answers. LDS (linear datamodeling score): rank correlation of predicted and true log-probability over {held_out} "
    "ablations that no method uses. Share of largest drop: leave-one-out drop of the top source, by the largest. Drop "
    "of top k: fall of the answer's log-probability without the top k sources, in nats. Precision and recall: the top "
    "{cited} sources as supporting facts. Runs: further forwards of an answer with sources removed; their tokens, by "
    "those of prompt and answer."
)


def view(record: dict[str, Any]) -> View:
    """Metrics and costs of the methods, their differences from the first, and a plot of their LDS."""
    methods = record["metrics"]["all"]
    first = next(iter(methods))
    drops = {name: f"drop of top {name[5:]}" for name in methods[first] if name.startswith("drop_")}
    labels = {name: METRICS[name] for name in ("lds", "largest_drop_share", "planted_rank")}
    paired = differences(record["pairs"]["all"], first, list(methods), labels, "answers")
    return View([_table(record, {**METRICS, **drops}), paired], [_dots(record)])


def _table(record: dict[str, Any], shown: dict[str, str]) -> TableView:
    rows = [
        (method, [*(measured(found[name], 2) for name in shown), *_costs(found)])
        for method, found in record["metrics"]["all"].items()
    ]
    evaluation = record["evaluation"]
    note = NOTE.format(
        answers=record["answers"],
        kind="given" if record["given_answers"] else "generated",
        correct=record["correct"],
        unit=record["unit"],
        held_out=evaluation["held_out"],
        cited=evaluation["cited"],
    )
    return TableView([*shown.values(), "runs", "forward tokens / plain"], rows, note)


def _costs(found: dict[str, Any]) -> list[Cell]:
    return [Cell(f"{found['runs']['value']:.0f}"), Cell(f"{found['forward_ratio']['value']:.2f}")]


def _dots(record: dict[str, Any]) -> Plot:
    estimates = {method: found["lds"] for method, found in record["metrics"]["all"].items()}
    marker = {"color": "var:--c1", "size": 10}
    dots = {"type": "scatter", "mode": "markers", "marker": marker, **horizontal(estimates, "var:--c1")}
    plan = layout(axis("LDS"), axis("", autorange="reversed"), 110 + 28 * len(estimates))
    return Plot("LDS by method", {"data": [dots], "layout": plan}, "Dots with 95 % intervals")
