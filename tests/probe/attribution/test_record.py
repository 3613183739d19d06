"""Attribution records against plain eager forwards, and against the decoding of extraction."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.errors import UserError
from extract.generation import decode
from extract.llm import LLM
from extract.prompts import decode_text
from extract.tasks import Sample
from extract.tasks.sources import Passage, SyntheticQA
from probe.attribution import AttributionRecord, SourcedPrompt, SourcedPrompts, record_answers
from tests.helpers.emulated_device import emulated_device
from tests.helpers.families import FAMILIES, WINDOW, save
from tests.helpers.reference import replay

DOCUMENTS: tuple[list[Passage | str], ...] = (
    [Passage("Ada", "Ada sings. She is tall."), Passage("", "Bo left in a boat.")],
    ["The key is 7f3. Nobody knows it."],
    ["One. Two. Three.", "Four."],
)
STEPS = 6


def prompts(llm: LLM) -> list[SourcedPrompt]:
    maker = SourcedPrompts(llm)
    return [maker.build(f"Who is number {n}?", documents) for n, documents in enumerate(DOCUMENTS)]


def small(llm: LLM, name: str, folder: Path, **options: Any) -> LLM:
    """A tiny model, whose prompts are the embedded tokenizer's."""
    family = FAMILIES[name]
    sizes = {"vocab_size": len(llm.tokenizer), "max_position_embeddings": 1024, **options}
    return LLM(str(save(type(family)(family.kind, {**family.options, **sizes}, family.without), llm.tokenizer, folder)))


def by_source(row: Tensor, prompt: SourcedPrompt) -> Tensor:
    """Sums of an attention row [head, key] over sources, answer so far, and rest of the prompt, token by token."""
    sources, length = len(prompt.sources), len(prompt.ids)
    found = torch.zeros(len(row), sources + 2)
    for key in range(row.shape[1]):
        inside = [n for n, spans in enumerate(prompt.spans) if any(start <= key < end for start, end in spans)]
        column = inside[0] if inside else sources + (0 if key >= length else 1)
        found[:, column] += row[:, key]
    return found


def follows(record: AttributionRecord, prompt: SourcedPrompt, eager: Any) -> None:
    """Every field but the contributions equals that of one eager forward over prompt and answer."""
    answer = record.tokens.tolist()
    truth = replay(eager, prompt.ids, answer)
    log_probs = truth["logits"].float().log_softmax(-1)
    torch.testing.assert_close(record.log_probs, log_probs[range(len(answer)), answer], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(record.hidden, truth["hidden"], atol=1e-3, rtol=1e-3)
    entropies = torch.distributions.Categorical(logits=log_probs).entropy()
    torch.testing.assert_close(record.entropies, entropies, atol=1e-4, rtol=1e-4)
    for step, row in enumerate(truth["attention"]):
        torch.testing.assert_close(record.attention[step].flatten(0, 1), by_source(row, prompt), atol=1e-5, rtol=1e-4)
        ids = torch.tensor(prompt.ids + answer)
        first, second = row.topk(2).values.T
        clear = first - second > 1e-5  # rounding decides between keys of equal attention
        copied = ids[row.argmax(-1)] == answer[step]
        assert record.copies[step].flatten()[clear].equal(copied[clear])


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt-oss"])
def test_records_equal_an_eager_forward(name: str, llm: LLM, tmp_path: Path) -> None:
    """Batched, padded, prefilled in chunks, beyond windows, with sinks and soft caps; generated and given answers."""
    model = small(llm, name, tmp_path)
    model.prefill_chunk = 23
    chosen, eager = prompts(model), LLM(model.name, attention="eager").model
    for record, prompt in zip(record_answers(model, chosen, budget=STEPS), chosen, strict=True):
        follows(record, prompt, eager)
    given = record_answers(model, chosen, answers=["It is Ada.", "7f3", "Four, I think."])
    for record, prompt in zip(given, chosen, strict=True):
        follows(record, prompt, eager)
    assert [record.text for record in given] == ["It is Ada.", "7f3", "Four, I think."]


def test_generation_and_contributions_are_those_of_decoding(llm: LLM, tmp_path: Path) -> None:
    model = small(llm, "llama-gqa", tmp_path)
    chosen = prompts(model)
    samples = [Sample(n, str(n), prompt.ids, [], STEPS, "", "") for n, prompt in enumerate(chosen)]
    plain = decode(model, samples)
    decoded = decode(model, samples, sources=[prompt.spans for prompt in chosen])
    assert decoded.contribution is not None
    for row, record in enumerate(record_answers(model, chosen, budget=STEPS)):
        steps, sources = len(record.tokens), len(chosen[row].sources)
        assert record.tokens.equal(plain.tokens[row, :steps])
        kept = [*range(sources), -2, -1]
        wanted = decoded.contribution[row, :steps][..., kept]
        torch.testing.assert_close(record.contribution.flatten(1, 2), wanted, atol=1e-6, rtol=1e-5)


def test_answers_of_the_embedded_llm_rest_on_their_facts(llm: LLM) -> None:
    """Its greedy tokens are those of plain decoding; copying heads attend to the facts that the answer repeats."""
    (question,) = SyntheticQA(1, seed=3).load().records
    prompt = SourcedPrompts(llm).build(question.question, question.passages)
    (record,) = record_answers(llm, [prompt], budget=32)
    plain = decode(llm, [Sample(0, "", prompt.ids, [], 32, "", "")])
    ended = plain.tokens[0, : plain.lengths[0]].tolist()
    assert record.tokens.tolist() == [token for token in ended if token not in llm.end_tokens]
    assert record.text == decode_text(llm.tokenizer, ended)
    follows(record, prompt, LLM(attention="eager").model)
    assert record.sources == len(prompt.sources) == 8
    assert record.copies.any(dim=(1, 2)).float().mean() > 0.5
    torch.testing.assert_close(record.attention.sum(-1), torch.ones_like(record.attention[..., 0]), atol=1e-4, rtol=0)


def test_a_generated_answer_may_be_empty(llm: LLM, tmp_path: Path) -> None:
    model = small(llm, "llama-gqa", tmp_path)
    (first, *_) = record_answers(model, prompts(model)[:1], budget=STEPS)
    model._ends = (int(first.tokens[2]),)
    (record,) = record_answers(model, prompts(model)[:1], budget=STEPS)
    stop = first.tokens.tolist().index(int(first.tokens[2]))
    assert record.tokens.equal(first.tokens[:stop])
    model._ends = (int(first.tokens[0]),)
    (record,) = record_answers(model, prompts(model)[:1], budget=STEPS)
    assert (record.text, record.attention.shape[0], record.contribution.shape[0]) == ("", 0, 0)


def test_bad_answers_are_one_line_before_weights_load(llm: LLM, tmp_path: Path) -> None:
    model = small(llm, "gemma2", tmp_path)
    prompt = SourcedPrompts(model).build("Who?", ["Ada sings."])
    for wrong, answers, options in (
        ("an answer without text", [" \n"], {}),
        ("exceed the model's context of 1024", None, {"budget": 2000}),
        ("exceed the model's context of 1024", ["Ada " * 1000], {}),
        ("a budget of at least 1", None, {"budget": 0}),
    ):
        with pytest.raises(UserError, match=wrong):
            record_answers(model, [prompt], answers, **options)
    long = SourcedPrompts(model).build("Who?", ["Ada", "Ada and Bo and so on " * WINDOW])
    with pytest.raises(UserError, match=rf"source 2 \(document 2\) .* sliding window of {WINDOW} "):
        record_answers(model, [long])
    assert model._model is None


def test_no_step_waits_for_a_gpu(llm: LLM, tmp_path: Path) -> None:
    """Whose values are read a step later: the answers, which end at different steps, stay what they are."""
    plain, other = (small(llm, "llama-gqa", tmp_path) for _ in range(2))
    plain._ends = other._ends = ()
    endless = record_answers(plain, prompts(llm), budget=9)
    plain._ends = tuple(int(record.tokens[4 + row]) for row, record in enumerate(endless))
    ended, waits = record_answers(plain, prompts(llm), budget=9), list[int]()
    with emulated_device(other.model) as device:
        for budget in (1, 2, 9):
            device.waits.clear()
            late = record_answers(other, prompts(llm), budget=budget)
            waits.append(len(device.waits))
        other._ends = plain._ends
        stopped = record_answers(other, prompts(llm), budget=9)
    assert waits[1] == waits[2]
    for records, others in ((endless, late), (ended, stopped)):
        for a, b in zip(records, others, strict=True):
            assert a.tokens.equal(b.tokens)
            torch.testing.assert_close(a.attention, b.attention, rtol=0, atol=0)
    assert max(len(record.tokens) for record in ended) < 9
