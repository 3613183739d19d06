"""Attribution in one line, and by `generate(custom_generate=…)`: same text as without, same records."""

from pathlib import Path
from typing import Any

import pytest
import torch

from extract import LLM
from extract.errors import UserError
from probe.attribution import SourcedPrompts, record_answers
from probe.attribution.citations import as_documents, attribute, citing, context_share
from probe.attribution.citations.located import document_starts, located_prompt
from probe.attribution.methods import MeanAttention

TOWN = "Eastmill is a town in the province of Westria. It is known for its silk."
NURSE = "Maria Hill is a nurse. Maria Hill went swimming in the town of Eastmill."
QUESTION = "In which province is the town where Maria Hill went swimming?"
DOCUMENTS = [{"title": "Eastmill", "text": TOWN}, NURSE]


@pytest.fixture(scope="module")
def tiny(tiny_llm_folder: Path) -> LLM:
    return LLM(str(tiny_llm_folder))


@pytest.fixture(params=["embedded", "tiny"])
def either(request: pytest.FixtureRequest, llm: LLM, tiny: LLM) -> LLM:
    return llm if request.param == "embedded" else tiny


def inputs(llm: LLM, *prompts: str) -> Any:
    llm.tokenizer.padding_side = "left"
    return llm.tokenizer(list(prompts), return_tensors="pt", padding=True)


def test_documents_are_attributed_as_text_that_was_given(llm: LLM) -> None:
    given = "Maria Hill went swimming in the town of Eastmill. Eastmill is a town in the province of Westria."
    found = attribute(llm, QUESTION, DOCUMENTS, answer=given)
    assert found.answer == given
    assert {one["cited_text"] for one in found.citations()} >= {NURSE[23:], TOWN[:46]}
    assert found.matrix.shape == (len(found.tokens), 4)


def test_generate_returns_the_same_tokens(either: LLM) -> None:
    prompts = inputs(
        either, f"{TOWN} {NURSE}\n{QUESTION}\nAnswer:", f"Read: {NURSE}\n{TOWN} Who went swimming?\nAnswer:"
    )
    assert not bool(prompts["attention_mask"].all())  # one is padded
    options = {**prompts, "max_new_tokens": 12, "pad_token_id": either.tokenizer.pad_token_id or 0}
    former = either.model.config._attn_implementation
    for more in ({"do_sample": False}, {"do_sample": True, "temperature": 1.5}, {"return_dict_in_generate": True}):
        torch.manual_seed(3)
        plain = either.model.generate(**options, **more)
        torch.manual_seed(3)
        sources = citing(either.tokenizer, [TOWN, NURSE])
        found = either.model.generate(**options, **more, custom_generate=sources)
        if "return_dict_in_generate" in more:
            assert type(plain) is type(found)
            plain, found = plain.sequences, found.sequences
        assert torch.equal(plain, found)
        assert len(sources.answers) == 2
        width = prompts["input_ids"].shape[1]
        for row, answer in zip(found, sources.answers, strict=True):
            assert answer.answer == either.tokenizer.decode(row[width:], skip_special_tokens=True)
    assert either.model.config._attn_implementation == former


def test_the_sources_of_a_prompt_of_ours_are_found_in_its_tokens(llm: LLM) -> None:
    """The same prompt, built and located: same sources, same token spans."""
    for unit in ("sentence", "passage", "token"):
        built = SourcedPrompts(llm, unit=unit).build(QUESTION, [TOWN, NURSE])
        found = located_prompt(llm, built.ids, as_documents([TOWN, NURSE]), unit)
        assert found.sources == built.sources
        assert found.spans == built.spans


def test_documents_are_found_in_any_order_and_repeated_ones_one_after_the_other() -> None:
    assert document_starts("x A y A z", ["A", "A"]) == [2, 6]
    assert document_starts("x B y A z", ["A", "B"]) == [6, 2]
    assert document_starts("A B, then A B", ["A", "B"]) == [10, 12]  # an example before may quote them
    assert document_starts("B", ["  B "]) == [-2]


def test_methods_and_ablated_runs_give_other_scores_of_the_same_answer(tiny: LLM) -> None:
    plain = attribute(tiny, QUESTION, DOCUMENTS, budget=4)
    found = [
        attribute(tiny, QUESTION, DOCUMENTS, answer=plain.answer, method=MeanAttention()),
        attribute(tiny, QUESTION, DOCUMENTS, budget=4, ablations=2),
    ]
    for one in found:
        assert one.answer == plain.answer
        assert one.method != plain.method
        assert one.matrix.shape == plain.matrix.shape and not torch.equal(one.matrix, plain.matrix)
        assert bool(one.matrix.isfinite().all())


def test_the_context_share_is_the_sum_over_copying_heads_one_by_one(tiny: LLM) -> None:
    prompt = SourcedPrompts(tiny).build(QUESTION, [TOWN, NURSE])
    (record,) = record_answers(tiny, [prompt], ["Maria Hill went swimming in the town of Eastmill."])
    assert bool(record.copies.any())
    expected = []
    for token in range(len(record.texts)):
        sums = [0.0] * record.contribution.shape[-1]
        for layer, head in record.copies[token].nonzero().tolist():
            for source, value in enumerate(record.contribution[token, layer, head].tolist()):
                sums[source] += value
        positive = [max(0.0, value) for value in sums]
        expected.append(sum(positive[:-2]) / sum(positive) if sum(positive) else 0.0)
    torch.testing.assert_close(context_share(record), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_an_answer_that_ends_before_its_first_token_has_no_tokens(tiny: LLM) -> None:
    ids = inputs(tiny, TOWN)["input_ids"]
    end = int(tiny.model(ids).logits[0, -1].argmax())
    sources = citing(tiny.tokenizer, [TOWN])
    output = tiny.model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=end, custom_generate=sources)
    assert output.shape[1] == ids.shape[1] + 1
    (answer,) = sources.answers
    assert answer.answer == "" and answer.citations() == [] == answer.ungrounded()
    assert "No span of the answer" in answer.to_html()


def test_generate_refuses_in_one_line(tiny: LLM) -> None:
    prompts = inputs(tiny, "Some other text.")
    with pytest.raises(UserError, match="document 1 is not in the prompt word for word"):
        tiny.model.generate(**prompts, max_new_tokens=2, custom_generate=citing(tiny.tokenizer, [TOWN]))
    with pytest.raises(UserError, match="not beam_search"):
        tiny.model.generate(
            **inputs(tiny, TOWN), max_new_tokens=2, num_beams=2, custom_generate=citing(tiny.tokenizer, [TOWN])
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": []}, "no documents"),
        ({"documents": ["  "]}, "document 1 has no text"),
        ({"question": " "}, "a question without text"),
        ({"answer": "\n"}, "an answer without text"),
        ({"documents": ["word " * 9000]}, "exceed the model's context"),
        ({"ablations": -1}, "ablations"),
        ({"grounded_from": 2.0}, "grounded_from"),
        ({"unit": "page"}, "unit 'page'"),
    ],
)
def test_bad_input_is_one_line_before_weights_load(tiny_llm_folder: Path, changes: Any, message: str) -> None:
    fresh = LLM(str(tiny_llm_folder))
    given: Any = {"question": QUESTION, "documents": [TOWN], **changes}
    with pytest.raises(UserError, match=message) as refused:
        attribute(fresh, **given)
    assert "\n" not in str(refused.value)
    assert fresh._model is None
