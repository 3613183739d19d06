"""Tables of a diagnosis for the terminal."""

from typing import Any

from rich.console import Group

from probe.diagnosis.causes import CAUSES
from probe.diagnosis.experiment.predicted import predicted_table
from probe.diagnosis.experiment.reported import cause_rows
from probe.diagnosis.trial import INTERVENTIONS
from probe.metrics import Estimate, difference_text, p_text
from probe.results import TextTable


def diagnosis_table(results: dict[str, Any]) -> Group:
    """Causes with the outcomes of interventions, the claims against random sorting, and the prediction of failure.

    Args:
        results: Of the experiment.

    """
    tables = [_causes(results), _claims(results)]
    if results["prediction"]:
        tables.append(_prediction(results["prediction"]))
    if results["expected_heads"]:
        tables.append(predicted_table(results["expected_heads"]))
    return Group(*tables)


def _causes(results: dict[str, Any]) -> TextTable:
    title = (
        f"Causes of {results['held_out_failures']} held-out failures of {results['llm']['name']} "
        f"({results['failed']} of {results['answers']} answers failed)"
    )
    caption = "share of failures whose right token an intervention makes the model's choice [95 % Wilson interval]"
    if results["thresholds"] is None:
        caption += "; no thresholds: too few training prompts were solved"
    out = TextTable(title, ["cause", "failures", *INTERVENTIONS.values()], caption)
    for label, count, outcomes in cause_rows(results):
        out.add_row(label, str(count), *(_rate(outcomes[name]["rescued"]) for name in INTERVENTIONS))
    return out


def _rate(record: dict[str, Any]) -> tuple[str, ...]:
    return Estimate.of(record).forms(2, 2, leading_zero=False) if record["n"] else ("",)


def _claims(results: dict[str, Any]) -> TextTable:
    caption = "random: the same failures sorted at random [central 95 %]; p: Fisher's exact test; Holm: over the claims"
    out = TextTable("Interventions by cause", ["claim", "rate", "other causes", "random", "p"], caption)
    for claim in results["claims"]:
        out.add_row(claim_text(claim), _rate(claim["rate"]), _rate(claim["rest"]), _random(claim), p_text(claim))
    return out


def _random(claim: dict[str, Any]) -> tuple[str, ...]:
    if claim["random"] is None:
        return ("",)
    return Estimate(claim["random"], claim["random_low"], claim["random_high"]).forms(2, 2, leading_zero=False)


def claim_text(claim: dict[str, Any]) -> str:
    """A claim in words.

    >>> claim_text({"causes": ["context"], "intervention": "amplified", "outcome": "rescued", "more": True})
    'written, outvoted by the context: named heads amplified rescues more'

    """
    causes = " or ".join(CAUSES[cause] for cause in claim["causes"])
    outcome = {"rescued": "rescues", "changed": "changes"}[claim["outcome"]]
    return f"{causes}: {INTERVENTIONS[claim['intervention']]} {outcome} {'more' if claim['more'] else 'less'}"


def _prediction(prediction: dict[str, Any]) -> TextTable:
    caption = (
        f"{prediction['answers']} answers, {prediction['failed']} of them failed; first {prediction['tokens']} tokens; "
        "each prompt is scored by a model fitted on others [95 % bootstrap interval over prompts]"
    )
    out = TextTable("Prediction of failure", ["predictor", "AUROC", "heads less this one"], caption)
    for name, record in prediction["auroc"].items():
        pair = prediction["differences"].get(name)
        out.add_row(name, Estimate.of(record).forms(3, 2, leading_zero=False), difference_text(pair) if pair else "")
    return out
