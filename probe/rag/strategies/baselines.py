"""Strategies without retrieval heads: the full context, the gold evidence, no context."""

from typing import Any, Literal

from extract.prompts import Span
from probe.rag import Never, Question, Trigger
from probe.rag.strategies.base import RetrievalState, Retrieved, Strategy
from probe.rag.strategies.windows import Windows, merged


class GoldEvidence(Strategy):
    """The supporting facts themselves.

    Args:
        name, windows, trigger: See `Strategy`.
        when: `always`: visible from the first draft on, and nothing is retrieved: what perfect windows could give.
            `fired`: visible when the trigger fires, as for the other strategies.

    """

    label = "gold"

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
        """With when."""
        return {**super().describe(), "when": self.when}

    def first(self, question: Question) -> list[Span]:
        """The facts, if always."""
        return merged(question.sample.evidence) if self.when == "always" else []

    def retrieve(self, state: RetrievalState) -> Retrieved:
        """The facts."""
        return Retrieved(merged(state.question.sample.evidence))


class FullContext(Strategy):
    """Everything visible all the time: the model as it is."""

    label = "full"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, trigger=Never())

    def first(self, question: Question) -> list[Span]:
        """The context."""
        return [question.context]


class WithoutRAG(Strategy):
    """The context is left out of the prompt, not masked; no retrieval."""

    label, bare, paper = "w/o RAG", True, "w/o RAG"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, trigger=Never())
