"""Sources of documents, and their tokens in prompts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks.sources import Passage
from probe.attribution import SourcedPrompts, Unit, split_sources
from probe.attribution.sources import kept_text

TEXTS = st.text("abc. \n!é字", min_size=1, max_size=40).filter(str.strip)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from(["sentence", "passage"]))
def test_sources_hold_every_character_but_whitespace_once(documents: list[str], unit: Unit) -> None:
    sources = split_sources(documents, unit)
    covered = [(source.document, at) for source in sources for at in range(source.start, source.end)]
    assert len(covered) == len(set(covered))
    assert sources == sorted(sources, key=lambda source: (source.document, source.start))
    for number, text in enumerate(documents):
        assert {at for at, one in enumerate(text) if one.strip()} <= {at for n, at in covered if n == number}
    for source in sources:
        text = documents[source.document][source.start : source.end]
        assert text == text.strip() != ""


@given(TEXTS, st.data())
def test_removed_sources_leave_the_others(text: str, data: st.DataObject) -> None:
    sources = split_sources([text])
    kept = data.draw(st.lists(st.booleans(), min_size=len(sources), max_size=len(sources)))
    found = kept_text(text, sources, kept)
    words = [text[one.start : one.end] for one, stays in zip(sources, kept, strict=True) if stays]
    assert "".join(found.split()) == "".join("".join(words).split())
    assert kept_text(text, sources, [True] * len(sources)) == text


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(["sentence", "passage", "token"]))
def test_tokens_of_a_source_spell_it(llm: LLM, documents: list[str], unit: Unit) -> None:
    """Each token of the prompt belongs to one source at most; together a source's are its text."""
    prompt = SourcedPrompts(llm, unit=unit).build("Who?", [Passage("Title. And more", text) for text in documents])
    positions = [at for spans in prompt.spans for start, end in spans for at in range(start, end)]
    assert len(positions) == len(set(positions))
    if unit != "passage":
        return
    for text, spans in zip(prompt.source_texts(), prompt.spans, strict=True):
        ((start, end),) = spans
        shown = prompt.tokenized.text[prompt.tokenized.offsets[start][0] : prompt.tokenized.offsets[end - 1][1]]
        assert text in shown
        assert shown.strip() == text


def test_removal_keeps_the_prompt_and_drops_titles_of_nothing(llm: LLM) -> None:
    prompt = SourcedPrompts(llm).build("Who?", [Passage("Ada", "Ada sings. She is tall."), Passage("Bo", "Bo left.")])
    assert prompt.ablated([True, True, True]) == prompt.ids
    text = llm.tokenizer.decode(prompt.ablated([False, True, False]))
    assert "Ada\nShe is tall.\n\nQuestion:\nWho?" in text
    assert "Bo" not in text
    assert "Context:\n\n" not in llm.tokenizer.decode(prompt.ablated([False, False, False]))


def test_bad_documents_are_one_line(llm: LLM) -> None:
    for wrong, documents in (("without documents", []), ("document 2 of 2 has no text", ["Ada.", " \n"])):
        with pytest.raises(UserError, match=wrong):
            SourcedPrompts(llm).build("Who?", documents)
    with pytest.raises(UserError, match="a question without text"):
        SourcedPrompts(llm).build(" ", ["Ada."])
    with pytest.raises(UserError, match="unit 'word': sentence, passage, or token"):
        split_sources(["Ada."], "word")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="token with a tokenizer"):
        split_sources(["Ada."], "token")
