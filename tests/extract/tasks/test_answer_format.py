"""Where an answer should have gone on otherwise."""

import pytest

from extract import LLM, NIAH, MultiHopQA, SyntheticQA
from extract.tasks import GoldContinuation
from extract.tasks.answer_format import fact_astray, fact_followed, led_to

FACTS = ["Ada Hill was born in the town of Eastmill.", "Eastmill is a town in the province of Westria."]
QUESTION = "In which province is the town where Ada Hill was born?"


@pytest.mark.parametrize(
    ("chain", "lead", "gold"),
    [
        ("Ada Hill works in the town of Lakemarch.", "Ada Hill", " was born in the town of Eastmill."),
        (
            "Ada Hill was born in the town of Eastmill. Eastmill is a town in the province of Golddale.",
            "Ada Hill was born in the town of Eastmill. Eastmill is a town in the province of",
            " Westria.",
        ),
        ("Ada Hill was born in Eastmill.", None, None),  # a fact in other words
        ("She likes tea. Lakemarch is a town.", None, None),
        ("", None, None),
    ],
)
def test_a_chain_goes_astray_where_it_leaves_a_fact(chain: str, lead: str | None, gold: str | None) -> None:
    found = fact_astray(chain, FACTS, QUESTION)
    assert (found and found.lead, found and found.gold) == (lead, gold)
    if found:
        assert found.lead.endswith(str(found.bare))
        assert f"{found.bare}{found.gold}" in FACTS


def test_a_solved_chain_is_followed_after_the_first_words_of_a_fact() -> None:
    found = fact_followed(" ".join(FACTS), FACTS)
    assert found == GoldContinuation("Ada Hill", " was born in the town of Eastmill.", "Ada Hill")
    assert fact_followed("Westria.", FACTS) is None


def test_the_form_of_an_answer_belongs_to_its_lead() -> None:
    for text, lead, gold in (
        ('It is "9b".', 'It is "', "7f"),
        ("It is **9b**", "It is **", "7f"),
        ("It is 9b.", "It is", " 7f"),
        ("It is...", "It is", " 7f"),
        ("No.", "It is", " 7f"),
    ):
        found = led_to(text, "It is", " 7f").in_form(text)
        assert (found.lead, found.gold) == (lead, gold)


def test_tasks_know_their_context_and_the_right_answer(llm: LLM) -> None:
    needles, questions = NIAH(lengths=[200], depths=[50], seed=2), MultiHopQA(SyntheticQA(3, seed=4))
    for task in (needles, questions):
        task.prepare(llm)
        for index in task.order():
            sample, (start, end) = task.sample(index), task.context_span(index)
            assert all(start <= a < b <= end for a, b in sample.evidence)
            shown = llm.tokenizer.decode(sample.ids[start:end])
            assert "Instruction" not in shown
            assert len(llm.tokenizer.decode(sample.ids[:start] + sample.ids[end:])) > 100
    sample = needles.sample(0)
    assert needles.gold_continuation(sample, "I do not know.", solved=False).lead == "The magic word is"
    assert needles.context_span(0)[1] - needles.context_span(0)[0] >= 200
    record, sample = questions.record(0), questions.sample(0)
    facts = [one.text[start:end] for one in record.passages for start, end in one.evidence]
    right = questions.gold_continuation(sample, f"{facts[0]} So the answer is {record.answer}.", solved=False)
    assert (right.lead, right.gold) == (f"{facts[0]} So the answer is", f" {record.answer}")
    assert right.bare == "So the answer is"
    short = MultiHopQA(SyntheticQA(1, seed=4), style="short")
    short.prepare(llm)
    assert short.gold_continuation(short.sample(0), "Oslo", solved=False) == GoldContinuation("", record.answer, "")
