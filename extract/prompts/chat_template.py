"""Chat prompts: system and user messages put into the model's chat template, and tokenized."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from extract.prompts.spans import TokenizedText, tokenize_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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

    Args:
        tokenizer: The model's tokenizer, with its chat template.
        system: System message.
        user: User message.
        options: Options of the template, such as `enable_thinking`.
        opening: First words of the assistant's answer.
        examples: Earlier turns, (user, assistant) each: few-shot examples.

    """
    if not tokenizer.chat_template:
        turns = "".join(f"{asked}\n\nAnswer: {answered}\n\n" for asked, answered in examples)
        text = f"{system}\n\n{turns}{user}\n\nAnswer: {opening}".rstrip(" ")
        return tokenize_with_offsets(tokenizer, text, special=True)
    text = _apply_chat_template(tokenizer, system, user, options or {}, examples) + opening
    return tokenize_with_offsets(tokenizer, text, special=False)


def _apply_chat_template(
    tokenizer: "PreTrainedTokenizerBase",
    system: str,
    user: str,
    options: Mapping[str, Any],
    examples: Sequence[tuple[str, str]],
) -> str:
    from jinja2 import TemplateError

    turns = []
    for asked, answered in examples:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    turns.append({"role": "user", "content": user})
    joined = [{"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}, *turns[1:]]
    turns = [{"role": "system", "content": system}, *turns]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options))
        if system.strip() in text:  # some templates drop a system message without an error
            return text
    except TemplateError:
        pass
    return str(tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True, **options))
