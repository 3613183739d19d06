"""Generated tokens as text: offsets in any tokenizer, sentences."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extract.llm import LLM
from extract.prompts import complete_sentence, first_characters, sentences, spell, words
from tests.helpers import reference_rag

TEXTS = [
    "The town of Eastmill lies in Westria. So the answer is Westria.",
    "Géza von Cziffra (1900–1989) 日本語 🦉🦉 was here.\n\nSecond line",
    "  spaces   and\ttabs ",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_side_by_side_and_make_up_the_text(llm: LLM, text: str) -> None:
    ids = llm.tokenizer(text, add_special_tokens=False)["input_ids"]
    spelled = spell(llm.tokenizer, ids)
    assert spelled.text == text
    assert [start for start, _ in spelled.offsets] == [0, *(end for _, end in spelled.offsets)][: len(ids)]
    assert "".join(text[a:b] for a, b in spelled.offsets) == text


def test_offsets_agree_with_the_tokenizers_own(llm: LLM) -> None:
    text = TEXTS[0]
    encoded = llm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert spell(llm.tokenizer, encoded["input_ids"]).offsets == [tuple(pair) for pair in encoded["offset_mapping"]]


def test_a_character_of_several_tokens_belongs_to_all_of_them(llm: LLM) -> None:
    ids = llm.tokenizer("a 🦉 b", add_special_tokens=False)["input_ids"]
    spelled = spell(llm.tokenizer, ids)
    owl = [place for place in first_characters(spelled) if place in (1, 2)]
    assert len(owl) > 1  # the bird takes several tokens, and each is placed at it or at the space before it
    assert spelled.text == "a 🦉 b"


SENTENCES = {
    "One. Two! Three? Four": ["One.", " Two!", " Three?", " Four"],
    'He said "Go." Then he left.': ['He said "Go."', " Then he left."],
    "Dr. J. Smith of St. Ives paid 3.5 million. He won.": ["Dr. J. Smith of St. Ives paid 3.5 million.", " He won."],
    "Title\nText of it. More": ["Title\n", "Text of it.", " More"],
    "End.\n\nNext": ["End.", "\n\nNext"],
    "   ": [],
    "": [],
}


@pytest.mark.parametrize(("text", "expected"), SENTENCES.items())
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == expected


@given(st.text(alphabet='aB. !?\n")', max_size=40))
def test_sentences_are_side_by_side_and_hold_every_word(text: str) -> None:
    found = sentences(text)
    assert [a for a, _ in found] == [0, *(b for _, b in found)][: len(found)]
    assert all(text[a:b].strip() for a, b in found)
    assert {c for a, b in found for c in range(a, b)} >= {c for a, b in words(text) for c in range(a, b)}


@pytest.mark.parametrize(
    ("text", "behind", "end"),
    [
        ("It is. So", 0, 6),
        ("It is. So", 6, None),
        ("It is 3.", 0, None),  # of 3.5 kg, perhaps
        ("It is 3.5 kg. ", 0, 13),
        ("It is Dr. ", 0, None),
        ("In the U.S. Army he is. So", 0, 23),
        ("", 0, None),
        ("A\n", 0, 2),
        ("A", 0, None),
        ('He said "Go.', 0, None),
        ('He said "Go." ', 0, 13),
    ],
)
def test_the_end_of_a_sentence(text: str, behind: int, end: int | None) -> None:
    assert complete_sentence(text, behind) == end


@example("B.\n", "5", 0)
@example("B \n", "5", 0)
@given(st.text(alphabet='aBC. !?\n")', max_size=40), st.text(alphabet='aB5. !?\n")', max_size=5), st.integers(0, 20))
def test_a_complete_sentence_stays_what_it_is_whatever_follows(text: str, more: str, behind: int) -> None:
    end = complete_sentence(text, behind)
    assert end is None or complete_sentence(text + more, behind) == end


@example("?(B. ")
@given(st.text(alphabet='aBC.S !?\n"(t', max_size=40))
def test_sentences_and_words_equal_a_slow_reference(text: str) -> None:
    assert sentences(text) == reference_rag.sentences(text)
    assert words(text) == reference_rag.words(text)
