"""Texts of the prompts for questions, and the two styles of answer."""

import re
from dataclasses import dataclass, replace

from extract.errors import UserError
from extract.tasks.answer_format import ANSWER_END, AnswerFormat

SYSTEM = "You are a helpful AI bot that answers questions for a user."
TEMPLATE = "{context}Question:\n{question}\n\nInstruction:\n{instruction}"
CONTEXT = "Context:\n{context}\n\n"
EXAMPLE = {
    "context": "Eastmill\nEastmill is a town in the province of Westria. It is known for its silk.\n\n"
    "Maria Hill\nMaria Hill is a nurse. Maria Hill went swimming in the town of Eastmill.",
    "question": "In which province is the town where Maria Hill went swimming?",
    "chain": "Maria Hill went swimming in the town of Eastmill. Eastmill is a town in the province of Westria. "
    "So the answer is Westria.",
    "short": "Westria",
}
"""The default few-shot example; its answer is that of the style."""


@dataclass(frozen=True)
class AnswerStyle:
    """Default texts of a style of answer.

    Attributes:
        instruction: What the prompt asks for.
        marker: Text before the answer in a generation; empty where the generation is the answer alone.
        gold: The gold answer as the model should write it, for teacher forcing.
        budget: Most tokens to generate.

    """

    instruction: str
    marker: str
    gold: str
    budget: int


ANSWER_STYLES = {
    "chain": AnswerStyle(
        instruction='State the facts that answer the question, then end with "So the answer is" and the answer.',
        marker="So the answer is",
        gold="So the answer is {answer}.",
        budget=100,
    ),
    "short": AnswerStyle(
        instruction="Answer with a few words from the context only.",
        marker="",
        gold="{answer}",
        budget=24,
    ),
}


@dataclass(frozen=True)
class QuestionTexts:
    """Texts of a question's prompt. Where one is null, the style of answer decides.

    Attributes:
        instruction: What the prompt asks for.
        marker: Text before the answer in a generation.
        opening: First words of the answer, put into the prompt.
        answer_end: Regular expression of an answer's end.
        system: System message.
        template: User message, with `{context}` and `{question}` once each; `{instruction}` may occur.
        context_template: The context in the user message, with `{context}` once; left out where no context is shown.
        examples: Few-shot examples, each with `context`, `question` and `answer`; null: one invented example, since
            small models give an answer in the wanted form only after an example of it; an empty list: none.

    """

    instruction: str | None = None
    marker: str | None = None
    opening: str = ""
    answer_end: str = ANSWER_END
    system: str = SYSTEM
    template: str = TEMPLATE
    context_template: str = CONTEXT
    examples: list[dict[str, str]] | None = None

    def in_style(self, style: str) -> "QuestionTexts":
        """The same with the style's texts where none are given.

        >>> QuestionTexts().in_style("short").instruction
        'Answer with a few words from the context only.'

        """
        preset = ANSWER_STYLES[style]
        return replace(
            self,
            instruction=preset.instruction if self.instruction is None else self.instruction,
            marker=preset.marker if self.marker is None else self.marker,
            examples=[{**EXAMPLE, "answer": EXAMPLE[style]}] if self.examples is None else self.examples,
        )

    def answer_format(self, style: str) -> AnswerFormat:
        """How answers are found and evaluated."""
        preset = ANSWER_STYLES[style]
        marker = preset.marker if self.marker is None else self.marker
        return AnswerFormat(self.opening, marker, self.answer_end, preset.gold)

    def check(self) -> None:
        """Check placeholders, examples and the regular expression.

        Raises:
            UserError: naming the text that is wrong.

        """
        placeholders = (
            ("template", self.template, "{context}"),
            ("template", self.template, "{question}"),
            ("context_template", self.context_template, "{context}"),
        )
        for where, text, placeholder in placeholders:
            if text.count(placeholder) != 1:
                raise UserError(f"task texts.{where}: it must hold {placeholder} once")
        for example in self.examples or []:
            if missing := {"context", "question", "answer"} - set(example):
                raise UserError(f"task texts.examples: one lacks {', '.join(sorted(missing))}")
        try:
            re.compile(self.answer_end)
        except re.error as error:
            raise UserError(f"task texts.answer_end: '{self.answer_end}' is no regular expression ({error})") from error
