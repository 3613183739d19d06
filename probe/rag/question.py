"""A question of masked RAG: its prompt with and without the context, and the spans within it."""

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
        prompt_without_context: Prompt tokens of the same question without its context.

    """

    sample: Sample
    context: Span
    sentences: list[tuple[Span, str]]
    prompt_without_context: list[int]

    @classmethod
    def from_task(cls, task: MultiHopQA, without_context: MultiHopQA, number: int) -> "Question":
        """The question of that number, from a task and from the same task without contexts."""
        spans = task.context_spans(number)
        prompt = without_context.sample(number).ids
        return cls(task.sample(number), spans.context, spans.sentences, prompt)

    @property
    def evidence(self) -> set[int]:
        """Positions of the supporting facts' tokens."""
        return {position for start, end in self.sample.evidence for position in range(start, end)}
