"""Words and sentences of a text, against a slow reference."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extract.prompts import complete_sentence_end, sentence_spans, word_spans
from tests.helpers import reference_rag

SENTENCES = {
    "One. Two! Three? Four": ["One.", " Two!", " Three?", " Four"],
    'He said "Go." Then he left.': ['He said "Go."', " Then he left."],
    "Dr. J. Smith of St. Ives paid 3.5 million. He won.": ["Dr. J. Smith of St. Ives paid 3.5 million.", " He won."],
    "Title\nText of it. More": ["Title\n", "Text of it.", " More"],
    "End.\n\nNext": ["End.", "\n\nNext"],
    "你好。我走了！他说：“好？”对。": ["你好。", "我走了！", "他说：“好？”", "对。"],
    "版本３．５好。真的？！是": ["版本３．５好。", "真的？！", "是"],
    "वह है। क्या? हाँ॥": ["वह है।", " क्या?", " हाँ॥"],
    "أين هو؟ هنا۔ نعم": ["أين هو؟", " هنا۔", " نعم"],
    "«Oui!» „Ja.“ {...} No": ["«Oui!»", " „Ja.“", " {...} No"],
    "你好!我走?": ["你好!", "我走?"],
    "   ": [],
    "": [],
}


@pytest.mark.parametrize(("text", "expected"), SENTENCES.items())
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentence_spans(text)] == expected


@given(st.text(alphabet='aB. !?\n")好。？।」“．3', max_size=40))
def test_sentences_are_side_by_side_and_hold_every_word(text: str) -> None:
    found = sentence_spans(text)
    assert [a for a, _ in found] == [0, *(b for _, b in found)][: len(found)]
    assert all(text[a:b].strip() for a, b in found)
    assert {c for a, b in found for c in range(a, b)} >= {c for a, b in word_spans(text) for c in range(a, b)}


@pytest.mark.parametrize(
    ("text", "after", "end"),
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
def test_the_end_of_a_sentence(text: str, after: int, end: int | None) -> None:
    assert complete_sentence_end(text, after) == end


@example("B.\n", "5", 0)
@example("B \n", "5", 0)
@given(
    st.text(alphabet='aBC. !?\n")好。？।」“．', max_size=40),
    st.text(alphabet='aB5. !?\n")好。」“．', max_size=5),
    st.integers(0, 20),
)
def test_a_complete_sentence_stays_what_it_is_whatever_follows(text: str, more: str, after: int) -> None:
    end = complete_sentence_end(text, after)
    assert end is None or complete_sentence_end(text + more, after) == end


@example("?(B. ")
@given(st.text(alphabet='aBC.S !?\n"(t', max_size=40))
def test_sentences_and_words_equal_a_slow_reference(text: str) -> None:
    assert sentence_spans(text) == reference_rag.sentences(text)
    assert word_spans(text) == reference_rag.words(text)
