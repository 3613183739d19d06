"""EM and F1 against an independent reading of HotpotQA's rules, on odd strings; answers found in generations."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.tasks import AnswerFormat, contains, exact_match, f1, find_answer

PIECES = [
    "the",
    "The",
    "a",
    "an",
    "yes",
    "No",
    "noanswer",
    "Paris",
    "paris",
    "U.S.",
    "3.5",
    "—",
    "ß",
    "é",
    "anthem",
    "a.b",
]
PIECES += ["...", "'", "-", "_", "\t", "\n", "", " ", "日本", "the-end", "no answer", "“", "a_b", "\u00a0", "ﬁ", "İ"]
odd = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=6).map(" ".join) | st.text(max_size=12)


def words(text: str) -> list[str]:
    """Lower, drop punctuation, drop articles that are words, split: one character at a time."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    # \b is a border between word characters and others, so an article may touch any non-word character.
    tokens = [piece for piece in re.split(r"(\w+)", kept) if piece]
    return "".join(" " if token in ("a", "an", "the") else token for token in tokens).split()


def slow_em(said: str, gold: str) -> float:
    return float(words(said) == words(gold))


def slow_f1(said: str, gold: str) -> float:
    a, b = words(said), words(gold)
    closed = (["yes"], ["no"], ["noanswer"])
    if a != b and (a in closed or b in closed):
        return 0.0
    left, same = list(b), 0
    for word in a:
        if word in left:
            left.remove(word)
            same += 1
    return 0.0 if same == 0 else 2 * same / (len(a) + len(b))


@settings(max_examples=1000)
@given(odd, odd)
def test_em_and_f1_equal_the_slow_reference(said: str, gold: str) -> None:
    assert exact_match(said, gold) == slow_em(said, gold)
    assert f1(said, gold) == pytest.approx(slow_f1(said, gold))
    assert f1(said, gold) == pytest.approx(f1(gold, said))


@pytest.mark.parametrize(
    ("said", "gold", "em", "score"),
    [
        ("The Beatles", "beatles", 1, 1),
        ("yes", "Yes.", 1, 1),
        ("yes, it is", "yes", 0, 0),  # a closed answer is right or wrong
        ("no", "noanswer", 0, 0),
        ("Golden Valley", "Golden Valley, Minnesota", 0, 0.8),
        ("cat cat", "cat", 0, 2 / 3),
        ("", "", 1, 0),
        ("", "the", 1, 0),
    ],
)
def test_known_values(said: str, gold: str, em: float, score: float) -> None:
    assert exact_match(said, gold) == em
    assert f1(said, gold) == pytest.approx(score)


@pytest.mark.parametrize(
    ("generated", "found"),
    [
        ("A lies in B. So the answer is Westria.", "Westria"),
        ("so the ANSWER is: St. Louis. It lies", "St. Louis"),
        ("So the answer is 3.5 million.\nSo the answer is 4.", "3.5 million"),
        ("So the answer is Westria", "Westria"),
        ("So the answer is", ""),
        ("It is Westria.", None),
    ],
)
def test_answers_after_the_marker(generated: str, found: str | None) -> None:
    assert find_answer(generated, "So the answer is") == found


def test_an_answer_that_stands_alone() -> None:
    assert find_answer("Westria.\n\nWestria is") == "Westria"
    assert find_answer("a | b", end=r"\|") == "a"


@given(odd, odd, odd)
def test_containment_of_whole_words_by_position(before: str, gold: str, after: str) -> None:
    """Word by word; an answer that is contained stays contained within a longer text."""
    said, wanted = words(f"{before} {gold} {after}"), words(gold)
    if wanted in (["yes"], ["no"], ["noanswer"]):
        return
    found = any(said[start : start + len(wanted)] == wanted for start in range(len(said))) if wanted else not said
    assert contains(f"{before} {gold} {after}", gold) == found
    assert contains(gold, gold) == 1


@pytest.mark.parametrize(
    ("text", "gold", "answer", "wanted"),
    [
        ("Yes, both are bands.", "yes", "", 1),
        ("Both are bands. So the answer is yes.", "yes", "yes", 1),
        ("No. 5 was hers. So the answer is yes.", "yes", "yes", 0),  # it says both
        ("There is no band. Yesterday it was yes.", "no", "Yesterday it was yes", 0),
        ("yes", "no", "yes", 0),
        ("It is no noanswer.", "noanswer", "It is no noanswer", 0),
        ("", "Oslo", "", 0),
    ],
)
def test_yes_and_no_count_only_as_the_first_word(text: str, gold: str, answer: str, wanted: int) -> None:
    assert contains(text, gold, answer) == wanted


FORM = AnswerFormat(marker="So the answer is")


@given(odd, odd)
def test_grades_agree_where_the_marker_is(said: str, gold: str) -> None:
    """All ways of extraction then find the same answer, and EM and F1 are those of the marker alone."""
    found = FORM.grade(f"It is so. So the answer is {said}", gold)
    answer = find_answer(f"It is so. So the answer is {said}", FORM.marker)
    assert answer is not None
    assert (found["em"], found["f1"], found["answered"]) == (exact_match(answer, gold), f1(answer, gold), 1)
    assert (found["em_last"], found["f1_last"]) == (found["em"], found["f1"])
    assert FORM.grade_forced(f"It is so. So the answer is {said}", gold, None) == {
        "em_forced": found["em"],
        "f1_forced": found["f1"],
    }


def test_grades_of_a_generation_without_the_marker() -> None:
    text = "She was born in 1990. The city is Oslo."
    found = FORM.grade(text, "Oslo")
    assert (found["em"], found["f1"], found["answered"], found["contains"]) == (0, 0, 0, 1)
    assert (found["em_last"], found["f1_last"]) == (0, f1("The city is Oslo", "Oslo"))
    assert FORM.grade_forced(text, "Oslo", " Oslo. The next question") == {"em_forced": 1, "f1_forced": 1}
    assert FORM.grade_forced(text, "Oslo", "") == {"em_forced": 0, "f1_forced": 0}
    assert FORM.last("") == ""
