"""A question as masked RAG sees it: its prompt with and without the context, and where things stand in it."""

from dataclasses import dataclass

from extract.prompts import Span
from extract.tasks import MultiHopQA, Sample


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        sample: Prompt tokens, evidence and gold answer.
        context: Token span of the context.
        sentences: Token span and text of each sentence of the context.
        bare: Prompt tokens without the context.

    """

    sample: Sample
    context: Span
    sentences: list[tuple[Span, str]]
    bare: list[int]

    @property
    def evidence(self) -> set[int]:
        """Positions of the supporting facts' tokens."""
        return {position for start, end in self.sample.evidence for position in range(start, end)}


def ask(task: MultiHopQA, without: MultiHopQA, number: int) -> Question:
    """The question of that number, from a task and from the same one without contexts."""
    placed = task.context_spans(number)
    return Question(task.sample(number), placed.context, placed.sentences, without.sample(number).ids)
