"""Ablated runs against one plain forward a run; masks of random ablations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.llm import LLM
from extract.prompts import tokenize_with_offsets
from extract.tasks import QuestionTexts
from extract.tasks.sources import Passage, SyntheticQA
from probe.attribution import AblatedRuns, SourcedPrompt, SourcedPrompts, ablated_runs, record_answers
from probe.attribution.masks import held_out_masks, leave_one_out_masks, sample_masks
from tests.helpers.families import LONGROPE, Family, save
from tests.probe.attribution.test_record import small

TEXTS = ["Ada sings. She is tall. Bo left in a boat.", "The key is 7f3. Nobody knows it."]


@torch.no_grad()
def plain(model: LLM, prompt: SourcedPrompt, answer: list[int], kept: list[bool]) -> torch.Tensor:
    """One forward over a prompt whose text is put together here, from the kept sources' texts."""
    texts, sources = list[str](), list(zip(prompt.sources, prompt.source_texts(), kept, strict=True))
    for document in range(len(prompt.documents)):
        if parts := [text for source, text, stays in sources if stays and source.document == document]:
            title = prompt.passages[document].title
            texts.append((f"{title}\n" if title else "") + " ".join(parts))
    style = QuestionTexts().in_style("chain")
    joined = "\n\n".join(texts)
    context = f"Context:\n{joined}\n\n" if texts else ""
    shown = [{"role": "system", "content": style.system}]
    for example in style.examples or []:
        user = style.template.format(
            context=f"Context:\n{example['context']}\n\n", question=example["question"], instruction=style.instruction
        )
        shown += [{"role": "user", "content": user}, {"role": "assistant", "content": example["answer"]}]
    user = style.template.format(context=context, question=prompt.question, instruction=style.instruction)
    shown.append({"role": "user", "content": user})
    text = model.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    logits = model.model(torch.tensor([ids + answer]), use_cache=False, logits_to_keep=len(answer) + 1).logits[0]
    found: torch.Tensor = logits.float().log_softmax(-1)[range(len(answer)), answer]
    return found


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt-oss", "gpt2"])
def test_runs_equal_plain_forwards(name: str, llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batched, padded, with shared keys; soft caps, sinks and sliding windows; alone as together."""
    sizes = {"n_positions": 1024} if name == "gpt2" else {}
    model = small(llm, name, tmp_path, **sizes)
    prompt = SourcedPrompts(model).build("What is it?", [Passage("", TEXTS[0]), Passage("A title", TEXTS[1])])
    answer = tokenize_with_offsets(model.tokenizer, "It is 7f3, I think.", special=False).ids
    masks = torch.cat([sample_masks(5, 5, seed=0), torch.ones(1, 5, dtype=torch.bool)])
    masks = torch.cat([masks, torch.zeros(1, 5, dtype=torch.bool)])
    runs = AblatedRuns(model, prompt, torch.tensor(answer))
    found = runs.log_probs(masks)
    eager = LLM(model.name, attention="eager")
    wanted = torch.stack([plain(eager, prompt, answer, mask) for mask in masks.tolist()])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(ablated_runs, "MOST_ROWS", 1)
    alone = AblatedRuns(model, prompt, torch.tensor(answer)).log_probs(masks)
    torch.testing.assert_close(alone, found, atol=1e-5, rtol=1e-4)


def test_runs_of_the_embedded_llm(llm: LLM) -> None:
    """All sources kept: the log-probabilities of the record. Shared keys are not run again."""
    (question,) = SyntheticQA(1, seed=3).load().records
    prompt = SourcedPrompts(llm).build(question.question, question.passages)
    (record,) = record_answers(llm, [prompt], budget=6)
    runs = AblatedRuns(llm, prompt, record.tokens)
    masks = torch.cat([torch.ones(1, 8, dtype=torch.bool), runs.sampled(1)])
    found = runs.log_probs(masks)
    torch.testing.assert_close(found[0], record.log_probs, atol=1e-3, rtol=1e-3)
    row = plain(llm, prompt, record.tokens.tolist(), masks[1].tolist())
    torch.testing.assert_close(found[1], row, atol=1e-3, rtol=1e-3)
    ablated = [prompt.ablated(mask) for mask in masks[:2].tolist()]
    shared = next(at for at, (one, other) in enumerate(zip(*ablated, strict=False)) if one != other)
    assert runs.cost(masks[1:2]) == len(ablated[1]) + len(record.tokens) - shared


def test_longrope_runs_keep_their_factors(llm: LLM, tmp_path: Path) -> None:
    """Runs on both sides of the original length, each rotated as a plain forward of its length."""
    options = {**LONGROPE, "vocab_size": len(llm.tokenizer), "max_position_embeddings": 1024}
    border = 210
    options |= {"original_max_position_embeddings": border}
    options["rope_parameters"] = {**LONGROPE["rope_parameters"], "original_max_position_embeddings": border}  # type: ignore[dict-item]
    model = LLM(str(save(Family("Phi3", options), llm.tokenizer, tmp_path)))
    prompt = SourcedPrompts(model).build("What is it?", TEXTS)
    answer = tokenize_with_offsets(model.tokenizer, "It is 7f3.", special=False).ids
    masks = sample_masks(8, 5, seed=0)
    lengths = [len(prompt.ablated(mask)) + len(answer) for mask in masks.tolist()]
    assert min(lengths) < border < max(lengths)
    found = AblatedRuns(model, prompt, torch.tensor(answer)).log_probs(masks)
    for row, mask, length in zip(found, masks.tolist(), lengths, strict=True):
        if length != border:
            torch.testing.assert_close(row, plain(model, prompt, answer, mask), atol=1e-4, rtol=1e-4)


def test_each_mask_runs_once(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(llm, "llama-gqa", tmp_path)
    prompt = SourcedPrompts(model).build("What is it?", TEXTS)
    runs, ran = AblatedRuns(model, prompt, torch.tensor([7, 8])), list[list[int]]()
    forward = runs._forward

    def counted(ids: list[list[int]], long: bool) -> Any:
        ran.extend(ids)
        return forward(ids, long)

    monkeypatch.setattr(runs, "_forward", counted)
    first = runs.log_probs(runs.sampled(3))
    again = runs.log_probs(runs.sampled(5)[[1, 1, 4]])
    assert len(ran) == 4
    assert again[0].equal(first[1])


@given(st.integers(1, 16), st.integers(0, 40), st.integers(0, 3))
def test_masks_are_distinct_and_none_is_held_out(sources: int, count: int, seed: int) -> None:
    held_out = held_out_masks(count, sources, seed)
    found = sample_masks(count, sources, seed=9, excluded=held_out)
    rows = [tuple(mask) for mask in [*found.tolist(), *held_out.tolist()]]
    assert len(rows) == len(set(rows))
    assert not any(all(row) for row in rows)
    assert not {tuple(mask) for mask in leave_one_out_masks(sources).tolist()} & {tuple(m) for m in held_out.tolist()}
    assert found.equal(sample_masks(count + 5, sources, seed=9, excluded=held_out)[: len(found)])
    assert len(found) == min(count, 2**sources - 1 - len(held_out))


def test_sources_stay_with_probability_one_half() -> None:
    for sources in (8, 20):
        masks = torch.cat([sample_masks(20, sources, seed) for seed in range(100)]).float()
        assert (masks.mean(0) - 0.5).abs().max() < 0.06
