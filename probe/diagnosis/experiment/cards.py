"""A page with a card for each failed answer: the token where it goes wrong, both candidates, what wrote them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from extract.errors import UserError
from probe.attribution.citations import safe_text
from probe.diagnosis.causes import CAUSES, Thresholds
from probe.diagnosis.experiment.outcomes import summary, with_causes
from probe.diagnosis.experiment.own_questions import diagnosis_record
from probe.diagnosis.experiment.reported import with_reported
from probe.diagnosis.trial import INTERVENTIONS
from probe.results import Trial, Trials, page_style, page_templates


@dataclass(frozen=True)
class Run:
    """A finished diagnosis.

    Attributes:
        name: Of the LLM.
        trials: With their causes, sorted and reported.

    """

    name: str
    trials: list[Trial]


def read_run(file: Path) -> Run:
    """A diagnosis from its results.json and the trials that it names.

    Raises:
        UserError: the file is damaged or of another experiment, or its trials are gone.

    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; give the results.json of a run of configs/diagnosis.yaml")
    record = diagnosis_record(file)
    trials = Trials(record["trials"]).read()
    if len(trials) != record["answers"]:
        found = f"{len(trials)} of {record['answers']} answers"
        raise UserError(f"{file}: {record['trials']} holds {found}; run the diagnosis again in its working folder")
    thresholds = None if record["thresholds"] is None else Thresholds(**record["thresholds"])
    causes = with_causes(trials, thresholds)
    # Results of earlier versions do not name them: the claims of the same trials do.
    supported = record.get("supported", summary(causes)["supported"])
    return Run(record["llm"]["name"], with_reported(causes, supported))


def cards_page(run: Run, most: int) -> str:
    """One self-contained HTML file; it fetches nothing, and no text of a prompt or answer is markup.

    Args:
        run: The diagnosis.
        most: Most cards of a cause.

    """
    failed = [trial for trial in run.trials if trial["failed"]]
    by_cause = {cause: [trial for trial in failed if trial["reported"] == cause] for cause in CAUSES}
    return (
        page_templates("probe.diagnosis.experiment")
        .overlay(finalize=_finalized)
        .get_template("cards.html.j2")
        .render(
            style=Markup(page_style() + _asset("cards.css")),
            name=run.name,
            answers=len(run.trials),
            failed=len(failed),
            groups=[
                (CAUSES[cause], len(trials), [_card(trial) for trial in trials[:most]])
                for cause, trials in by_cause.items()
                if trials
            ],
        )
    )


def _card(trial: Trial) -> dict[str, Any]:
    """What a card shows of an answer."""
    token = trial["token"]
    outcomes = [(INTERVENTIONS[name], one["rescued"]) for name, one in trial["interventions"].items()]
    merged = CAUSES[trial["cause"]] if trial["cause"] != trial["reported"] else None
    return {**trial, "outcomes": outcomes, "candidates": _candidates(token), "bars": _bars(token), "merged": merged} | {
        # Trials of earlier versions have no predictions.
        "predictions": (token or {}).get("predictions", [])
    }


def _candidates(token: dict[str, Any] | None) -> list[tuple[str, str, str, str]]:
    """Both tokens with their probabilities, with the context and without."""
    if token is None:
        return []
    without = token["prior_log_probs"] or [None, None]
    pairs = zip(("right", "wrong"), token["log_probs"], without, strict=True)
    return [(kind, token[kind], _share(mine), _share(bare)) for kind, mine, bare in pairs]


def _share(log_prob: float | None) -> str:
    return "" if log_prob is None else f"{100 * math.exp(log_prob):.1f} %"


def _bars(token: dict[str, Any] | None) -> Sequence[dict[str, Any]]:
    """Sources with the largest margins either way, and the width of their bars in percent."""
    sources: list[dict[str, Any]] = [] if token is None else token["sources"]
    largest = max((abs(source["margin"]) for source in sources), default=0.0) or 1.0
    return [{**source, "width": round(100 * abs(source["margin"]) / largest)} for source in sources]


def _asset(name: str) -> str:
    return (resources.files("probe.diagnosis.experiment") / "assets" / name).read_text(encoding="utf-8")


def _finalized(value: Any) -> Any:
    """Texts without characters that reorder them."""
    return safe_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
