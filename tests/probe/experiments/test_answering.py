"""`probe.answer`: plain, it is the model's own greedy answer; with heads ablated, the ablation's."""

from typing import Any

import pytest
import torch

import probe
from extract import UserError
from extract.generation import DynamicHeads, generate_ablated
from extract.generation.ablation.output import AblatedGenerations
from extract.llm import LLM
from extract.prompts import render_chat_prompt
from extract.tasks import MultiHopQA, QuestionTexts, Sample
from extract.tasks.sources import SyntheticQA
from probe.experiments.ablation.conditions import AblateStatic
from tests.extract.generation.test_head_ablation import STATIC, prepared, short_sample


def test_without_ablation_it_is_the_models_own_generation(llm: LLM) -> None:
    ids = render_chat_prompt(llm.tokenizer, QuestionTexts().system, "Name a colour.").ids
    found = probe.answer(llm, "Name a colour.", budget=8)
    own = llm.model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :]
    assert found.tokens.tolist() == own.tolist()
    assert found.text == llm.tokenizer.decode(own, skip_special_tokens=True).strip()
    assert not found.scoring.any()  # no evidence was named


def test_a_message_gets_the_prompt_of_a_task(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """System text and options of the chat template, as `MultiHopQA` puts a question without a context."""
    template = "{{ day }}|" + str(llm.tokenizer.chat_template)
    monkeypatch.setattr(llm.tokenizer, "chat_template", template)
    monkeypatch.setattr(llm, "chat", {"day": "Monday"})
    task = MultiHopQA(
        SyntheticQA(count=1),
        style="short",
        context="none",
        texts=QuestionTexts(template="{question}{context}", examples=[]),
    )
    task.prepare(llm)
    sample = task.sample(0)
    prompts = []

    def recorded(llm: LLM, samples: list[Sample], *rest: Any) -> AblatedGenerations:
        prompts.extend(sample.ids for sample in samples)
        return generate_ablated(llm, samples, *rest)

    monkeypatch.setattr("probe.experiments.ablation.answering.generate_ablated", recorded)
    assert len(probe.answer(llm, sample.question, budget=1).tokens) == 1
    assert prompts == [sample.ids]
    assert llm.tokenizer.decode(sample.ids).startswith("Monday|")


def test_ablated_heads_are_the_ablations(llm: LLM) -> None:
    sample = short_sample(llm, 1, steps=4)
    (static,) = prepared(AblateStatic())
    wanted = generate_ablated(llm, [sample], [static], DynamicHeads()).of(0, 0)
    heads = [divmod(head, 9) for head in STATIC[:4]]
    found = probe.answer(llm, sample.ids, ablate=heads, evidence=sample.evidence, budget=4)
    assert found.tokens.tolist() == wanted.tokens.tolist()
    assert torch.equal(found.scoring.flatten(1), wanted.before)
    plain = probe.answer(llm, sample.ids, evidence=sample.evidence, budget=4)
    assert plain.scoring[0].any()
    assert plain.tokens.tolist() != found.tokens.tolist()  # the needle is lost


@pytest.mark.parametrize(("ablate", "budget", "said"), [([(30, 0)], 4, "no head 30-0"), ([], 0, "at least 1 token")])
def test_wrong_arguments_are_refused(llm: LLM, ablate: list[tuple[int, int]], budget: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        probe.answer(llm, [1, 2, 3], ablate=ablate, budget=budget)
