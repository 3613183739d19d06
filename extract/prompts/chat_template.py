"""Chat prompts: system and user messages put into the model's chat template, and tokenized."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from extract.errors import UserError
from extract.prompts.spans import Span, TokenizedText
from extract.prompts.tokenization import named_control_token, tokenize_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = dict[str, str]


def render_chat_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    system: str,
    user: str,
    options: Mapping[str, Any] | None = None,
    opening: str = "",
    examples: Sequence[tuple[str, str]] = (),
) -> TokenizedText:
    """Prompt of one system and one user message, ready for the assistant's first token.

    A chat template brings its own BOS, so none is added to it. A template without a system role (it raises, or leaves
    the text out) gets the system text at the head of the first user turn. Without a template the prompt is plain text.
    Messages are data: the name of a control token in one is text. In `opening` it is the control token.

    Args:
        tokenizer: The model's tokenizer, with its chat template.
        system: System message.
        user: User message.
        options: Options of the template, such as `enable_thinking`.
        opening: First words of the assistant's answer.
        examples: Earlier turns, (user, assistant) each: few-shot examples.

    Raises:
        UserError: a message has the name of a control token, and cannot be distinguished from the template's text; or
            the template raises.

    """
    if not tokenizer.chat_template:
        shown = "".join(f"{asked}\n\nAnswer: {answered}\n\n" for asked, answered in examples)
        messages = f"{system}\n\n{shown}{user}\n\nAnswer: "
        text = f"{messages}{opening}".rstrip(" ")
        return tokenize_with_offsets(tokenizer, text, special=True, data=[(0, len(messages))])
    text, turns = _apply_chat_template(tokenizer, system, user, options or {}, examples)
    data = _message_spans(tokenizer, turns, options or {}, text)
    if data is None:
        _refuse_control_tokens(tokenizer, turns)
    return tokenize_with_offsets(tokenizer, text + opening, special=False, data=data or [])


def _render(tokenizer: "PreTrainedTokenizerBase", turns: list[Turn], options: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options))
    except TemplateError:
        raise
    except Exception as error:  # a template is a program
        raise TemplateError(f"{type(error).__name__}: {error}") from error


def _apply_chat_template(
    tokenizer: "PreTrainedTokenizerBase",
    system: str,
    user: str,
    options: Mapping[str, Any],
    examples: Sequence[tuple[str, str]],
) -> tuple[str, list[Turn]]:
    """The prompt, and the turns that it shows."""
    from jinja2 import TemplateError

    turns = []
    for asked, answered in examples:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    turns.append({"role": "user", "content": user})
    joined = [{"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}, *turns[1:]]
    turns = [{"role": "system", "content": system}, *turns]
    try:
        text = _render(tokenizer, turns, options)
        if system.strip() in text:  # some templates drop a system message without an error
            return text, turns
    except TemplateError:
        pass
    try:
        return _render(tokenizer, joined, options), joined
    except TemplateError as error:
        raise UserError(
            f"the model's chat template fails ({' '.join(str(error).split())[:200]}); give llm.chat the options "
            "that it needs, or correct its chat_template"
        ) from error


_FIRST, _LAST = 0x100000, 0x10FFFD
"""Characters of private use, which stand for messages."""


def _numbered(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with one character in place of each message; a template may treat a blank one differently."""
    return [
        {**turn, "content": chr(_FIRST + number) if turn["content"].strip() else turn["content"]}
        for number, turn in enumerate(turns)
    ]


def _message_spans(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], options: Mapping[str, Any], text: str
) -> list[Span] | None:
    """Characters of the messages in a prompt; None where the template changes more of them than outer whitespace."""
    from jinja2 import TemplateError

    try:
        pieces = re.split(f"([{chr(_FIRST)}-{chr(_LAST)}])", _render(tokenizer, _numbered(turns), options))
    except TemplateError:
        return None
    for strip in (False, True):
        shown, spans = pieces[0], list[Span]()
        for number, after in zip(pieces[1::2], pieces[2::2], strict=True):
            message = turns[ord(number) - _FIRST]["content"]
            message = message.strip() if strip else message
            spans.append((len(shown), len(shown) + len(message)))
            shown += message + after
        if shown == text:
            return spans
    return None


def _refuse_control_tokens(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> None:
    for turn in turns:
        if name := named_control_token(tokenizer, turn["content"]):
            raise UserError(
                f"'{name}' in a message is a control token, and the chat template changes the message, so that it "
                "cannot be encoded as text; remove it"
            )
