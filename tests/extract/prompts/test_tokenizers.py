"""Exact spans, one BOS and the system's text, whatever the tokenizer and its chat template."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from extract.errors import UserError
from extract.prompts import find_token_span, render_chat_prompt, tokenize_with_offsets
from extract.tasks.niah import NIAH
from tests.helpers.tokenizers import BOS, EOS, EXTRA, KINDS, fast

TURNS = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
RAISES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TEMPLATES = {
    "plain": None,
    "chat": "{{ bos_token }}" + TURNS,
    "raises": "{{ bos_token }}" + RAISES + TURNS,
    "drops": "{{ bos_token }}" + TURNS.replace("in messages", "in messages if m['role'] != 'system'"),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return fast(KINDS[request.param]())


words = st.text(st.sampled_from("ab. 漢字🙂éČ\n" + EXTRA[:9]), max_size=12)


@given(words, st.sampled_from(["The magic word is 708c47c5-18c1.", "Grüße, 漢字🙂 é-0.", "字🙂"]), words)
@settings(max_examples=60)
def test_a_span_holds_the_needle_and_nothing_else(tokenizer: Any, before: str, needle: str, after: str) -> None:
    """The tokens before the span, in it and after it decode to the three parts, or the needle is refused."""
    text = f"{before}{needle}{after}"
    assume(text.count(needle) == 1)
    prompt = tokenize_with_offsets(tokenizer, text, special=False)
    try:
        start, end = find_token_span(prompt, needle)
    except UserError as error:
        if "shares a token" not in str(error):
            raise
        return
    parts = (prompt.ids[:start], prompt.ids[start:end], prompt.ids[end:])
    for ids, wanted in zip(parts, (before, needle, after), strict=True):
        decoded = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        assert "".join(decoded.split()) == "".join(wanted.split())


@pytest.mark.filterwarnings("ignore:task depths")  # short haystacks
@pytest.mark.parametrize("template", TEMPLATES)
def test_needles_of_a_task_are_found_exactly(tokenizer: Any, template: str) -> None:
    """Prompts of the needle task in each template: the evidence is the needle, the system's text is there, BOS once."""
    tokenizer.chat_template = TEMPLATES[template]
    task = NIAH(lengths=[30, 90], depths=[0.0, 50.0, 100.0])
    task.prepare(SimpleNamespace(tokenizer=tokenizer, chat={}, context_length=4096, name="tiny"))  # type: ignore[arg-type]
    for index in range(len(task)):
        sample = task.sample(index)
        ((start, end),) = sample.evidence
        assert tokenizer.decode(sample.ids[start:end]).strip() == sample.fields["needle"]
        assert sample.ids.count(tokenizer.bos_token_id) == 1
        assert sample.ids[0] == tokenizer.bos_token_id
        assert "".join(task.texts.system.split()) in "".join(tokenizer.decode(sample.ids).split())


@pytest.mark.parametrize("template", ["raises", "drops"])
def test_a_template_without_system_role_gets_the_text_in_the_user_turn(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = TEMPLATES[template]
    assert render_chat_prompt(tokenizer, "S!", "U?").text == f"{BOS}[user] S!\n\nU?\n"


def test_a_prompt_without_template_does_not_end_with_an_end_token() -> None:
    """As some base models' tokenizers would have it."""
    made = KINDS["unigram"]()
    tokenizer = fast(made)
    pairs = [(token, made.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(f"{BOS} $A {EOS}", None, pairs)
    assert tokenizer("a").input_ids[-1] == tokenizer.eos_token_id
    prompt = render_chat_prompt(tokenizer, "S", "U")
    assert (prompt.ids[0], prompt.ids.count(tokenizer.eos_token_id)) == (tokenizer.bos_token_id, 0)
    assert tokenizer.decode(prompt.ids, skip_special_tokens=True).split() == prompt.text.split()
