"""Prompts by chat template."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from extract.prompts.spans import Prompt, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(
    tokenizer: "PreTrainedTokenizerBase",
    system: str,
    user: str,
    options: Mapping[str, Any] | None = None,
    opening: str = "",
    examples: Sequence[tuple[str, str]] = (),
) -> Prompt:
    """The prompt of one system and one user message, ready for the assistant's first token.

    A chat template brings its own BOS, so none is added to it. A template without a system role (it raises, or leaves
    the text out) gets the system text at the head of the first user turn. Without a template the prompt is plain text.
    `options` are the template's own, such as `enable_thinking`; `opening` is put into the assistant's mouth; `examples`
    are earlier turns of user and assistant.
    """
    if not tokenizer.chat_template:
        turns = "".join(f"{asked}\n\nAnswer: {answered}\n\n" for asked, answered in examples)
        text = f"{system}\n\n{turns}{user}\n\nAnswer: {opening}".rstrip(" ")
        return encode(tokenizer, text, special=True)
    return encode(tokenizer, _chat(tokenizer, system, user, options or {}, examples) + opening, special=False)


def _chat(
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
        if system.strip() in text:
            return text
    except TemplateError:
        pass
    return str(tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True, **options))
