"""Chat templates and exact spans."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.errors import UserError
from extract.llm import LLM
from extract.prompts import TokenizedText, find_token_span, render_chat_prompt, tokenize_with_offsets


class Templated:
    """A tokenizer stand-in: the embedded tokenizer under another chat template."""

    def __init__(self, tokenizer, template):  # type: ignore[no-untyped-def]
        self.tokenizer, self.chat_template, self.eos_token_id = tokenizer, template, tokenizer.eos_token_id

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return self.tokenizer(*args, **kwargs)

    def apply_chat_template(self, turns, **options):  # type: ignore[no-untyped-def]
        return self.tokenizer.apply_chat_template(turns, chat_template=self.chat_template, **options)


def test_chat_template_is_used_as_it_is(llm: LLM) -> None:
    prompt = render_chat_prompt(llm.tokenizer, "S", "U")
    assert prompt.text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    assert llm.tokenizer.decode(prompt.ids) == prompt.text


def test_a_template_without_a_system_role_gets_it_in_the_user_turn(llm: LLM) -> None:
    gemma = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    )
    prompt = render_chat_prompt(Templated(llm.tokenizer, gemma), "S", "U")  # type: ignore[arg-type]
    assert prompt.text == "[user] S\n\nU\n"


def test_a_model_without_template_gets_plain_text(llm: LLM) -> None:
    prompt = render_chat_prompt(Templated(llm.tokenizer, None), "S", "U")  # type: ignore[arg-type]
    assert prompt.text == "S\n\nU\n\nAnswer:"


words = st.text(st.sampled_from("abz 09-.é漢🙂\n"), min_size=0, max_size=20)


@given(words, words)
@settings(max_examples=100)
def test_a_located_span_decodes_to_the_text(llm: LLM, before: str, after: str) -> None:
    needle = "The magic word is 708c47c5-18c1."
    prompt = tokenize_with_offsets(llm.tokenizer, f"{before} {needle}\n{after}", special=False)
    start, end = find_token_span(prompt, needle)
    assert llm.tokenizer.decode(prompt.ids[start:end]).strip() == needle


@pytest.mark.parametrize(
    ("text", "offsets", "why"),
    [
        ("aXb", [(0, 3)], "shares a token"),
        ("X X", [(0, 1), (2, 3)], "2 times"),
        ("none", [(0, 4)], "0 times"),
        ("X", [], "no token covers"),
    ],
)
def test_what_cannot_be_located_exactly_is_an_error(text: str, offsets: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(UserError, match=why):
        find_token_span(TokenizedText(text, list(range(len(offsets))), offsets), "X")


def test_a_token_of_one_character_belongs_to_its_text() -> None:
    assert find_token_span(TokenizedText("aXb", [1, 2, 3], [(0, 1), (1, 2), (2, 3)]), "X") == (1, 2)
