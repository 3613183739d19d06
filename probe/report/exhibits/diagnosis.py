"""Diagnosis: why answers failed, tested by interventions, and predicted from their first tokens."""

from typing import Any

from probe.diagnosis import CAUSES, INTERVENTIONS
from probe.diagnosis.experiment import cause_rows, claim_text
from probe.metrics import difference_text, p_text
from probe.report import Cell, Plot, TableView, View, axis, layout, measured
from probe.report.exhibits.horizontal import horizontal

CAUSES_NOTE = (
    "{held_out} held-out failures; {failed} of {answers} answers failed. Cells: share of failures whose right token "
    "the intervention makes the model's choice, with 95 % Wilson intervals. Causes without a supported claim are "
    "merged into undecided; below it is how the rule sorted them."
)
CLAIMS_NOTE = (
    "Random: the same failures sorted at random, with the central 95 % of all permutations. p: Fisher's exact test; "
    "Holm: corrected over the claims."
)
EXPECTED_NOTE = (
    "Mean share of the expected heads, those of highest mean score in the probe's training rows, with 95 % bootstrap "
    "intervals. Acted: they attend to the evidence most. p: Mann-Whitney test of failed against solved answers."
)
PREDICTION_NOTE = (
    "AUROC of failure from the first {tokens} tokens of {answers} answers, {failed} of them failed; each prompt is "
    "scored by a model fitted on others. 95 % bootstrap intervals over prompts."
)


def view(record: dict[str, Any]) -> View:
    """Causes with their interventions, claims against random sorting, prediction, expected heads; shares of causes."""
    tables = [_causes(record), _claims(record)]
    if record["prediction"]:
        tables.append(_prediction(record["prediction"]))
    if record.get("expected_heads"):
        tables.append(_expected(record["expected_heads"]))
    return View(tables, [_shares(record)])


def _causes(record: dict[str, Any]) -> TableView:
    note = CAUSES_NOTE.format(held_out=record["held_out_failures"], failed=record["failed"], answers=record["answers"])
    rows = []
    for label, count, outcomes in cause_rows(record):
        rescued = [measured(outcomes[name]["rescued"], 2) for name in INTERVENTIONS]
        rows.append((label, [Cell(str(count)), *rescued]))
    return TableView(["failures", *INTERVENTIONS.values()], rows, note)


def _claims(record: dict[str, Any]) -> TableView:
    rows = [
        (
            claim_text(claim),
            [measured(claim["rate"], 2), measured(claim["rest"], 2), _random(claim), Cell(p_text(claim))],
        )
        for claim in record["claims"]
    ]
    return TableView(["rate", "other causes", "random", "p"], rows, CLAIMS_NOTE)


def _random(claim: dict[str, Any]) -> Cell:
    return measured({"value": claim["random"], "low": claim["random_low"], "high": claim["random_high"]}, 2)


def _prediction(prediction: dict[str, Any]) -> TableView:
    rows = []
    for name, found in prediction["auroc"].items():
        pair = prediction["differences"].get(name)
        rows.append((name, [measured(found), Cell(difference_text(pair) if pair else "")]))
    return TableView(["AUROC", "heads less this one"], rows, PREDICTION_NOTE.format(**prediction))


def _expected(records: list[dict[str, Any]]) -> TableView:
    rows = [
        (
            f"probe {one['probe'] + 1}{_before(one)}: {one['share']}",
            [measured(one["failed"], 2), measured(one["solved"], 2), Cell(p_text(one))],
        )
        for one in records
    ]
    return TableView(["failed", "solved", "p"], rows, EXPECTED_NOTE)


def _before(one: dict[str, Any]) -> str:
    """Whether a head acts does not depend on the step that it was predicted from."""
    return f", {one['steps']} steps before" if one["share"] == "predicted" else ""


def _shares(record: dict[str, Any]) -> Plot:
    shares = {CAUSES[cause]: share for cause, share in record["shares"].items() if share["value"] is not None}
    bars = {"type": "bar", "orientation": "h", "marker": {"color": "var:--c1"}, **horizontal(shares, "var:--ink")}
    plan = layout(axis("share of held-out failures"), axis("", autorange="reversed"), 110 + 28 * len(shares))
    return Plot("Causes of held-out failures", {"data": [bars], "layout": plan}, "Bars with 95 % intervals")
