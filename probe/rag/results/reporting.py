"""Masked RAG as an experiment with results: tables, plots and records for `probe.Artifacts`, and traces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from extract.utils import hashed_json, write_bytes
from probe.rag.results.outcomes import SHOWN_METRICS, RagOutcomes
from probe.rag.results.tables import answer_table, grades_table, retrieval_table, strategy_plots
from probe.rag.results.trace import Trace
from probe.rag.strategies import Strategy
from probe.results import comparison_tables, published_rag

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RagResults:
    """Results of a finished evaluation (see `probe.results.Experiment`).

    Attributes:
        outcomes: Metrics and traces.
        strategies: The strategies, in the same order.
        settings: What determined the answers; `probe` is the probe's training record.

    """

    outcomes: RagOutcomes
    strategies: Sequence[Strategy]
    settings: dict[str, Any]
    experiment: str = "rag"

    @property
    def results(self) -> dict[str, Any]:
        """Settings and metrics, without the ids of the probe's training samples."""
        probe = {key: value for key, value in self.settings["probe"].items() if key != "seen"}
        rest = {key: value for key, value in self.settings.items() if key not in ("probe", "strategies")}
        metrics = self.outcomes.results()
        return {"probe": probe, **rest, "strategy_settings": self.settings["strategies"], **metrics}

    def records(self) -> list[dict[str, Any]]:
        """One row for each run of a strategy on a question."""
        return self.outcomes.records()

    def table(self) -> Group:
        """Answers, retrieval, paired differences from the first strategy, and Table 4 as published."""
        name, mask = self.settings["llm"]["name"], self.settings["mask"]
        seen = seen_note(self.settings, self.outcomes.questions)
        title = f"Masked dynamic RAG of {name}: {self.outcomes.questions} questions, mask {mask}{seen and f'; {seen}'}"
        answers = answer_table(self.outcomes, title, self.strategies)
        names = self.outcomes.strategies
        pairs = comparison_tables(self.outcomes.pairs(), names[0], names, SHOWN_METRICS, "questions")
        return Group(answers, grades_table(self.outcomes), retrieval_table(self.outcomes), *pairs, published_rag())

    def plots(self) -> "dict[str, Figure]":
        """F1 and first recall of the strategies."""
        return strategy_plots(self.outcomes)


def seen_note(results: Mapping[str, Any], questions: int) -> str:
    """Warning of results on questions that the probe was fitted on; empty where there are none.

    >>> seen_note({"allow_seen": True, "seen_questions": 3}, questions=16)
    '3 of 16 questions are training or validation samples of the probe (allow_seen): not a held-out evaluation'

    """
    if not (seen := results.get("seen_questions", 0)):
        return ""
    return (
        f"{seen} of {questions} questions are training or validation samples of the probe (allow_seen): not a held-out "
        "evaluation"
    )


def write_traces(file: Path, traces: Sequence[Trace]) -> None:
    """Write one JSON object a line, each with its own hash: lines may be selected, but not edited."""
    write_bytes(file, b"".join(hashed_json(one, ensure_ascii=False) for one in traces))
