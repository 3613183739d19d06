"""Prompts of questions, and the tokens of context, evidence and sentences in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from extract.errors import UserError
from extract.prompts import Span, TokenizedText, render_chat_prompt, sentence_spans, tokens_between
from extract.tasks.passages import context_text, evidence_characters, evidence_only
from extract.tasks.prompt_texts import QuestionTexts
from extract.tasks.sources import Passage, Record

if TYPE_CHECKING:
    from extract.llm import LLM


@dataclass(frozen=True)
class ContextSpans:
    """Token span of a prompt's context, and of each of its sentences with the sentence's text."""

    context: Span
    sentences: list[tuple[Span, str]]


@dataclass(frozen=True)
class QuestionPrompt:
    """A question's prompt.

    Attributes:
        tokenized: The prompt's text and tokens.
        passages: The passages that it shows.
        context: Characters of the context; empty without one.

    """

    tokenized: TokenizedText
    passages: Sequence[Passage]
    context: Span

    def context_tokens(self) -> Span:
        """Token span of the context; (0, 0) without one."""
        start, end = self.context
        return tokens_between(self.tokenized, start, end) if end > start else (0, 0)

    def evidence_tokens(self) -> list[Span]:
        """Token spans of the supporting facts."""
        start, _ = self.context
        return [tokens_between(self.tokenized, start + a, start + b) for a, b in evidence_characters(self.passages)]

    def context_spans(self) -> ContextSpans:
        """Token spans of the context and its sentences, whitespace before a sentence left out."""
        start, end = self.context
        shown = self.tokenized.text[start:end]
        parts = [(a + len(shown[a:b]) - len(shown[a:b].lstrip()), b) for a, b in sentence_spans(shown)]
        found = [(tokens_between(self.tokenized, start + a, start + b), shown[a:b]) for a, b in parts]
        return ContextSpans(tokens_between(self.tokenized, start, end), found)


def evidence_depth(evidence: Sequence[Span], context: Span) -> float:
    """Mean position of the evidence tokens, in percent of the context's tokens; NaN without evidence.

    >>> evidence_depth([(12, 14), (18, 19)], context=(10, 20))
    43.333333333333336

    """
    positions = [position for start, end in evidence for position in range(start, end)]
    if not positions:
        return float("nan")
    return 100 * (sum(positions) / len(positions) - context[0]) / (context[1] - context[0])


class PromptBuilder:
    """Builds the prompts of questions for one model.

    Args:
        llm: Its tokenizer and chat template make the prompts.
        texts: Texts of the prompts, those of the answer style filled in.
        context: What is shown: the `full` context, the `gold` sentences alone, or `none`.

    """

    def __init__(self, llm: "LLM", texts: QuestionTexts, context: Literal["full", "gold", "none"]) -> None:
        self._llm, self._texts, self._context = llm, texts, context
        self._examples = [
            (self._user(example["question"], example["context"] if context != "none" else "")[0], example["answer"])
            for example in texts.examples or []
        ]

    def build(self, record: Record) -> QuestionPrompt:
        """The record's prompt.

        Raises:
            UserError: the chat template changes the text, so that evidence cannot be located.

        """
        passages = self._shown(record)
        context = context_text(passages)
        user, start = self._user(record.question, context)
        prompt = render_chat_prompt(
            self._llm.tokenizer, self._texts.system, user, self._llm.chat, self._texts.opening, self._examples
        )
        if user not in prompt.text:
            raise UserError(f"question {record.id}: the chat template changes the text, so evidence cannot be located")
        start += prompt.text.rindex(user)
        return QuestionPrompt(prompt, passages, (start, start + len(context)))

    def _shown(self, record: Record) -> Sequence[Passage]:
        """The passages that the prompt shows."""
        if self._context == "none":
            return ()
        if self._context == "full":
            return record.passages
        return [evidence_only(passage) for passage in record.passages if passage.evidence]

    def _user(self, question: str, context: str) -> tuple[str, int]:
        """The user message, and the character at which its context begins."""
        template = self._texts.template.replace("{context}", self._texts.context_template if context else "")
        before, _, after = template.partition("{context}") if context else (template, "", "")
        head = self._fill(before, question)
        user = f"{head}{context}{self._fill(after, question)}"
        lead = len(user) - len(user.lstrip())
        return user.strip(), len(head) - lead  # chat templates strip messages

    def _fill(self, text: str, question: str) -> str:
        """Question and instruction in one pass, so that braces in a question are left alone."""
        values = {"question": question, "instruction": self._texts.instruction or ""}
        return re.sub(r"\{(question|instruction)\}", lambda hole: values[hole.group(1)], text)
