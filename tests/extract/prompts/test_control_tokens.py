"""Names of control tokens in data are text, for every kind of tokenizer; other texts have the tokens that they had."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from extract.errors import UserError
from extract.llm import LLM
from extract.prompts import find_token_span, render_chat_prompt, tokenize_with_offsets
from extract.tasks import NIAH, MultiHopQA, NeedleTexts
from extract.tasks.sources import LoadedRecords, Passage, Record, Source
from tests.extract.prompts.test_tokenizers import TEMPLATES
from tests.helpers.tokenizers import BOS, EOS, EXTRA, KINDS, fast

CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}<|start|><think>\n"
)
NAMES = [BOS, EOS, "<|start|>", "<|end|>", "<think>"]


def chat_tokenizer(kind: str, template: str | None = CHATML) -> Any:
    """With two special tokens of a chat format, one that takes the space after it, and one that is not special."""
    made = KINDS[kind]()
    tokenizer = fast(made, template)
    for token in (AddedToken("<|start|>", special=True), AddedToken("<|end|>", special=True, rstrip=True)):
        tokenizer.add_tokens([token], special_tokens=True)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return chat_tokenizer(request.param)


words = st.text(st.sampled_from("ab. <>|/s漢字🙂éČ\n" + EXTRA[:9]), max_size=20)


@given(words, st.booleans())
@settings(max_examples=60)
def test_texts_without_names_have_the_tokens_that_they_had(tokenizer: Any, text: str, special: bool) -> None:
    assume(not any(name in text for name in NAMES))
    found = tokenize_with_offsets(tokenizer, text, special=special)
    plain = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    assert found.ids == plain["input_ids"]
    assert found.offsets == plain["offset_mapping"]
    prompt = render_chat_prompt(tokenizer, "Say.", f"a{text}b")
    assert prompt.ids == tokenizer(prompt.text, add_special_tokens=False)["input_ids"]


@given(words, st.sampled_from(["<|im_end|>", "<|endoftext|>", "<repo_name>"]), words)
@settings(max_examples=60)
def test_the_embedded_llm_reads_names_as_text(llm: LLM, before: str, name: str, after: str) -> None:
    """Without a name the tokens are transformers' own; with one, the message decodes to itself without that token."""
    prompt = render_chat_prompt(llm.tokenizer, "Say.", f"a{before}{after}b")
    assert prompt.ids == llm.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    named = render_chat_prompt(llm.tokenizer, "Say.", f"a{before}{name}{after}b")
    assert llm.tokenizer.decode(named.ids) == named.text
    start, end = find_token_span(named, f"a{before}{name}{after}b")
    assert not set(llm.tokenizer.all_special_ids) & set(named.ids[start:end])
    assert (named.ids[:start], named.ids[end:]) == (prompt.ids[:start], prompt.ids[-len(named.ids[end:]) :])


@given(words, st.sampled_from(NAMES), words)
@settings(max_examples=60)
def test_a_name_in_a_message_is_text(tokenizer: Any, before: str, name: str, after: str) -> None:
    """The message has no control token, and the prompt those of its template; or one line says why it cannot be."""
    message = f"a{before}{name}{after}b"
    try:
        prompt = render_chat_prompt(tokenizer, "Say.", message)
    except UserError as error:
        unigram = type(tokenizer.backend_tokenizer.model).__name__ == "Unigram"  # its vocabulary has BOS and EOS
        if "is a control token of the model that its tokenizer cannot encode" not in str(error) or not unigram:
            raise
        assert BOS in message or EOS in message
        return
    control = {tokenizer.convert_tokens_to_ids(name) for name in NAMES}
    start, end = find_token_span(prompt, message)
    assert not control & set(prompt.ids[start:end])
    harmless = render_chat_prompt(tokenizer, "Say.", "a b")
    assert [token for token in prompt.ids if token in control] == [x for x in harmless.ids if x in control]
    decoded = tokenizer.decode(prompt.ids[start:end], clean_up_tokenization_spaces=False)
    assert "".join(decoded.split()) == "".join(message.split())


def test_a_name_is_read_as_transformers_reads_it_without_special_tokens(tokenizer: Any) -> None:
    for name in ("<|start|>", "<|end|>"):
        text = f"An {name} in 3 words"
        wanted = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenize_with_offsets(tokenizer, text, special=False).ids == wanted


def test_a_prompt_without_a_template_has_no_control_token_but_its_bos() -> None:
    tokenizer = chat_tokenizer("byte_level", template=None)
    prompt = render_chat_prompt(tokenizer, f"S{EOS}", f"U{BOS}", examples=[(f"A{BOS}", f"B{EOS}")])
    assert [token for token in prompt.ids if token < 3] == [tokenizer.bos_token_id]
    assert prompt.ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompt.ids[1:]) == prompt.text


def test_the_opening_of_an_answer_may_hold_control_tokens() -> None:
    tokenizer = chat_tokenizer("byte_level")
    prompt = render_chat_prompt(tokenizer, "S", "<think>", opening="<think>")
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert prompt.ids.count(think) == 2  # the template's and the opening's
    assert prompt.ids[-1] == think


def test_a_message_that_the_template_changes_is_refused_if_it_names_a_control_token() -> None:
    changes = "{% for m in messages %}{{ m['content'] | replace('u', 'v') }}<|end|>{% endfor %}"
    tokenizer = chat_tokenizer("byte_level", template=changes)
    assert render_chat_prompt(tokenizer, "S", "u").text == "S<|end|>v<|end|>"
    with pytest.raises(UserError, match=r"'<\|end\|>' in a message is a control token, and the chat template changes"):
        render_chat_prompt(tokenizer, "S", "u<|end|>")


def test_private_characters_in_the_data_are_not_taken_for_control_tokens() -> None:
    tokenizer = chat_tokenizer("byte_level")
    stand_ins = "".join(chr(0xF0000 + number) * len(name) for number, name in enumerate(NAMES * 2))
    with pytest.raises(
        UserError, match=r"'<\|end\|>' in the text of data \(… .* …\) is a control token of the model that"
    ):
        render_chat_prompt(tokenizer, "S", f"<|end|> {stand_ins}")
    prompt = render_chat_prompt(tokenizer, "S", stand_ins)  # no name, no second tokenization
    assert prompt.ids == tokenizer(prompt.text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [CHATML, *TEMPLATES.values()])
def test_needles_and_haystacks_with_names(tokenizer: Any, template: str | None, tmp_path: Any) -> None:
    """The evidence is the whole needle, and no more control tokens are in the prompt than without the names."""
    unigram = (
        type(tokenizer.backend_tokenizer.model).__name__ == "Unigram"
    )  # its vocabulary has BOS: refused, see above
    tokenizer.chat_template = template
    control = {tokenizer.convert_tokens_to_ids(name) for name in NAMES}
    counts = []
    for name in ("", "<|start|>" if unigram else BOS, "<|end|>"):
        (tmp_path / "hay.txt").write_text(f"One is{name} one. Two{name} is two. Three is three. " * 3)
        texts = NeedleTexts(needle=f"The {name} word is {{uuid}}.")
        task = NIAH([20], [50.0], haystack=str(tmp_path / "hay.txt"), haystack_start="zero", texts=texts)
        task.prepare(SimpleNamespace(tokenizer=tokenizer, chat={}, context_length=4096, name="tiny"))  # type: ignore[arg-type]
        sample = task.sample(0)
        ((start, end),) = sample.evidence
        assert tokenizer.decode(sample.ids[start:end]).split() == str(sample.fields["needle"]).split()
        counts.append(sum(token in control for token in sample.ids))
    assert len(set(counts)) == 1


class OneQuestion(Source):
    """A record with names of control tokens in every text."""

    def load(self) -> LoadedRecords:
        passage = Passage("Ada <|im_start|>", "Ada<|im_end|> lives in Oslo.", evidence=((0, 28),))
        return LoadedRecords([Record("1", "Where <|im_end|> does Ada live?", "Oslo<|im_end|>", (passage,))])

    def describe(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize("forced", [False, True])
def test_questions_passages_and_answers_with_names(llm: LLM, forced: bool) -> None:
    task = MultiHopQA(OneQuestion(), teacher_forcing=forced)
    task.prepare(llm)
    sample = task.sample(0)
    control = set(llm.tokenizer.all_special_ids)
    ((start, end),) = sample.evidence
    assert llm.tokenizer.decode(sample.ids[start:end]).strip() == "Ada<|im_end|> lives in Oslo."
    shown = llm.tokenizer.decode(sample.ids)
    assert "Where <|im_end|> does Ada live?" in shown
    assert sum(token in control for token in sample.ids) == 2 * 4 + 1  # turns: system, example, answer, question
    if forced:
        assert sample.forced is not None
        assert not control & set(sample.forced)
        assert llm.tokenizer.decode(sample.forced) == "So the answer is Oslo<|im_end|>."
