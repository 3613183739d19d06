"""Strategies without retrieval heads: full context, gold evidence, no context."""

from typing import Any, Literal

from extract.prompts import Span
from probe.rag import Never, Question, Trigger
from probe.rag.strategies.base import RetrievalState, Retrieved, Strategy
from probe.rag.strategies.windows import Windows, merge_spans


class GoldEvidence(Strategy):
    """The supporting facts themselves: an upper bound for retrieval.

    Args:
        name, windows, trigger: See `Strategy`.
        when: `always`: visible from the first draft on, without any retrieval. `fired`: visible when the trigger
            fires, as for the other strategies.

    """

    default_name = "gold"

    def __init__(
        self,
        name: str | None = None,
        windows: Windows | None = None,
        trigger: Trigger | None = None,
        when: Literal["always", "fired"] = "always",
    ) -> None:
        super().__init__(name, windows, Never() if when == "always" else trigger)
        self.when = when

    def describe(self) -> dict[str, Any]:
        """Settings of every strategy, and `when`."""
        return {**super().describe(), "when": self.when}

    def initial_windows(self, question: Question) -> list[Span]:
        """The supporting facts for `always`, else nothing."""
        return merge_spans(question.sample.evidence) if self.when == "always" else []

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """The supporting facts."""
        return Retrieved(merge_spans(state.question.sample.evidence))


class FullContext(Strategy):
    """The full context visible all the time: the plain model."""

    default_name = "full"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, trigger=Never())

    def initial_windows(self, question: Question) -> list[Span]:
        """The context."""
        return [question.context]


class WithoutRAG(Strategy):
    """The context is left out of the prompt, not masked; no retrieval."""

    default_name, without_context, paper_column = "w/o RAG", True, "w/o RAG"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, trigger=Never())
