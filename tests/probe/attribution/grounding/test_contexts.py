"""Contexts without evidence and with a contradiction, labels by construction, and the tokens of an answer."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.prompts import sentence_spans
from extract.tasks import AnswerFormat, contains
from extract.tasks.sources import HotpotQA, Passage, Record, SyntheticQA
from probe.attribution.grounding import CONTEXTS, answer_span, contradicted, label, questions_of, without_evidence
from probe.attribution.grounding.contexts import Context, context_words, form, other_answer
from probe.attribution.grounding.labels import tokens_of

REAL = Path("/work/shared/data/hotpotqa/dev_distractor_200.json")


def records(real: bool) -> Sequence[Record]:
    if real and not REAL.exists():
        pytest.skip("HotpotQA is not here")
    return (HotpotQA(str(REAL)) if real else SyntheticQA(40, seed=1)).load().records


@pytest.mark.parametrize("real", [False, True])
def test_a_contradiction_replaces_the_answer_and_nothing_else(real: bool) -> None:
    questions, _ = questions_of(records(real))
    assert len(questions) > 30
    for question in questions.values():
        before, after = question.records["evidence"], question.records["contradiction"]
        assert (after.question, len(after.passages)) == (before.question, len(before.passages))
        gold, planted = question.gold, question.planted
        assert form(gold) == form(planted)
        for old, new in zip(before.passages, after.passages, strict=True):
            # The planted answer is nowhere else, so that putting the gold one back gives the text.
            assert new.text.replace(planted, gold).lower() == old.text.lower()
            assert new.title.replace(planted, gold).lower() == old.title.lower()
            for (start, end), (first, last) in zip(old.evidence, new.evidence, strict=True):
                assert new.text[first:last].replace(planted, gold).lower() == old.text[start:end].lower()
        assert not contains(context_words(after), gold)
        assert not contains(context_words(before), planted)
        facts = [one.text[start:end] for one in after.passages for start, end in one.evidence]
        assert any(contains(fact, planted) for fact in facts)


@pytest.mark.parametrize("real", [False, True])
def test_removing_the_evidence_leaves_other_sentences_and_the_length_as_they_are(real: bool) -> None:
    loaded = records(real)
    questions, _ = questions_of(loaded)
    sentences = {
        passage.text[a:b].strip()
        for record in loaded
        for passage in record.passages
        for a, b in sentence_spans(passage.text)
    }
    lengths = list[float]()
    for question in questions.values():
        before, after = question.records["evidence"], question.records["removed"]
        for answer in (question.gold, question.planted):
            assert not contains(context_words(after), answer)
        assert len(after.passages) == len(before.passages)
        assert not any(passage.evidence for passage in after.passages)
        for old, new in zip(before.passages, after.passages, strict=True):
            titled = contains(old.title, question.gold)
            assert new.title == ("" if titled else old.title)
            place = 0
            for a, b in sentence_spans(old.text):
                sentence = old.text[a:b]
                fact = any(start < b and end > a for start, end in old.evidence)
                if titled or fact or contains(sentence, question.gold):
                    rest = new.text[place:].lstrip()
                    found = max((one for one in sentences if rest.startswith(one)), key=len)
                    place = new.text.index(found, place) + len(found)
                    place += len(sentence) - len(sentence.rstrip())
                else:
                    assert new.text[place:].startswith(sentence)
                    place += len(sentence)
            assert place == len(new.text)
        lengths.append(len(context_words(after)) / len(context_words(before)))
    assert 0.95 < sum(lengths) / len(lengths) < 1.05


WORDS = st.lists(st.sampled_from(["Oslo", "oslo", "Osloan", "is", "cold.", "x-Oslo"]), max_size=12).map(" ".join)


@given(WORDS, WORDS, WORDS)
def test_evidence_keeps_its_place_wherever_the_answer_stands(before: str, fact: str, after: str) -> None:
    text = f"{before} Ada: {fact} Bo: {after}"
    start, end = text.index("Ada:"), text.index("Bo:") - 1
    record = Record("1", "Where?", "Oslo", (Passage("", text, ((start, end),)),))
    (found,) = contradicted(record, "New York").passages
    ((first, last),) = found.evidence
    assert (
        found.text[first:last]
        == contradicted(Record("1", "Where?", "Oslo", (Passage("", text[start:end]),)), "New York").passages[0].text
    )
    assert "Osloan" in found.text or "Osloan" not in text
    assert not contains(found.text.replace("x-", ""), "Oslo")


def test_answers_are_replaced_by_others_of_their_form() -> None:
    answers = ["Oslo", "12 May 1990", "New York", "Old York", "4 July 1985", "Rome", "1990"]
    made = [Record(str(n), f"Which, number {n}?", answer, ()) for n, answer in enumerate(answers)]
    found = [other_answer(made, number) for number in range(len(made))]
    assert found == ["Rome", "4 July 1985", None, None, "12 May 1990", "Oslo", None]
    busy = [Record("0", "Is it Rome?", "Oslo", ()), *made[1:]]
    assert other_answer(busy, 0) is None


def test_questions_without_three_contexts_are_counted() -> None:
    def made(answer: str, text: str = "Ada lives in Oslo. She is tall.", question: str = "Where?") -> Record:
        return Record("1", question, answer, (Passage("", text, ((0, text.index(".") + 1),)),))

    given = [
        made("Oslo"),
        made("yes"),
        made("Oslo", question="Is it Oslo?"),
        made("Rome"),
        made("O'Hara", "Ada met O'Hara. She likes OHara. It rains."),
        made("12", "She is 12. Bo is tall."),
    ]
    found, left_out = questions_of(given)
    assert list(found) == [0]
    assert left_out == {
        "the answer is yes, no or empty": 1,
        "the question names the answer": 1,
        "no supporting fact states the answer": 1,
        "the context states the answer in other words": 1,
        "no other question has an answer of the same form": 1,
    }
    bare = [made("Oslo", "Ada lives in Oslo."), made("Rome", "Ada lives in Rome.")]
    with pytest.raises(UserError, match=r"too few other sentences to take the evidence's place \(2\);"):
        questions_of(bare)
    with pytest.raises(UserError, match="no question whose evidence can be replaced"):
        questions_of(given[1:2])


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        (("Oslo", "Paris", "Rome"), (True, False, True)),
        (("the Oslo", "Paris", "rome."), (True, False, True)),  # exact match is SQuAD's
        (("Oslo", "It is Oslo", "Oslo"), (None, False, False)),  # known without the context
        (("Oslo", None, "Rome"), (None, None, True)),  # what it says without evidence is not known
        (("Paris", "Paris", "Paris"), (None, False, None)),  # wrong answers have no known origin
        (("in Oslo", "Paris", "Rome or Oslo"), (None, False, None)),
        ((None, "Paris", None), (None, False, None)),
    ],
)
def test_labels_are_by_construction(answers: Sequence[str | None], labels: Sequence[bool | None]) -> None:
    found: dict[Context, str | None] = dict(zip(CONTEXTS, answers, strict=True))
    assert tuple(label(context, found, "Oslo", "Rome") for context in CONTEXTS) == labels


@pytest.mark.parametrize("opening", ["", "The answer is"])
@pytest.mark.parametrize("marker", ["", "so the answer is"])
@pytest.mark.parametrize("generated", ["Oslo is it. So the answer is: Oslo.\nNext", "  Oslo", "St. Ives, of course. A"])
def test_the_span_of_an_answer_is_its_text(opening: str, marker: str, generated: str) -> None:
    form_ = AnswerFormat(opening=opening, marker=marker)
    span, answer = answer_span(form_, generated), form_.find(generated)
    assert (span is None) == (not answer)
    if span is not None and answer is not None:
        assert answer.endswith(generated[slice(*span)])
        if not opening:
            assert generated[slice(*span)] == answer
            assert answer not in generated[: span[0]]


def test_tokens_of_a_span_share_a_character_with_it() -> None:
    tokens = ["He", " is", " in", " Os", "lo", ".", "", " Bo"]
    assert tokens_of(tokens, (9, 13)) == [3, 4]
    assert tokens_of(tokens, (8, 13)) == [3, 4]
    assert tokens_of(tokens, (9, 14)) == [3, 4, 5]


def test_a_passage_whose_title_has_the_answer_is_replaced_as_a_whole() -> None:
    passages = (Passage("Oslo", "It is a city."), Passage("Ada", "She lives there. She is tall.", ((0, 16),)))
    found = without_evidence(Record("1", "Where?", "Oslo", passages), ["Salt is sold here.", "Bo left town."])
    assert found is not None
    kept = [(passage.title, passage.text) for passage in found.passages]
    assert kept == [("", "Bo left town."), ("Ada", "Salt is sold here. She is tall.")]
    assert without_evidence(Record("1", "Where?", "Oslo", passages), ["Salt is sold here."]) is None
