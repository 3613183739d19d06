"""Prefill in chunks, of shared prefixes and under LongRoPE: the rows of unchunked single prompts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from extract.generation import Decoded, DynamicHeads, decode, generate_ablated
from extract.generation import prefill as prefill_module
from extract.generation.ablation.prompt_places import Means, PromptPlaces
from extract.generation.batching import pad
from extract.generation.prefill import prefill_prompts
from extract.llm import LLM
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from extract.tasks.niah import NIAH
from probe.experiments.ablation.conditions import NoAblation
from tests.extract.attention.test_families import agrees
from tests.helpers import reference
from tests.helpers.families import BORDER, FAMILIES, LONGROPE, Family, save


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Tokens of each forward."""
    lengths: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, inputs: lengths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        yield lengths
    finally:
        hook.remove()


def equal(one: Decoded, row: int, other: Decoded, number: int) -> None:
    """Same tokens, scores and argmax positions; hidden states and masses within 1e-4."""
    n = other.lengths[number]
    assert one.lengths[row] == n
    for name in ("tokens", "copy_paste", "argmax"):
        assert torch.equal(getattr(one, name)[row, :n], getattr(other, name)[number, :n]), name
    for name in ("hidden", "reasoning"):
        torch.testing.assert_close(
            getattr(one, name)[row, :n], getattr(other, name)[number, :n], atol=1e-4, rtol=1e-4, equal_nan=True
        )


def column(llm: LLM, length: int, depths: dict[str, float] | list[float]) -> list[Sample]:
    """A column of a needle grid, one text for all depths."""
    task = NIAH(lengths=[length], depths=depths, haystack_start="zero")
    task.prepare(llm)
    return [replace(task.sample(index), budget=5) for index in task.order()]


def test_a_prompt_in_chunks_is_the_prompt(llm: LLM) -> None:
    samples = column(llm, 150, [30.0])
    full, chunked = LLM(prefill_chunk=None), LLM(prefill_chunk=64)
    full._model = chunked._model = llm.model
    with counted(llm.model) as lengths:
        truth = decode(full, samples)
    assert max(lengths) == len(samples[0].ids) - 1
    with counted(llm.model) as lengths:
        equal(decode(chunked, samples), 0, truth, 0)
    assert max(lengths) == 64


def test_a_grid_runs_its_common_prefixes_once(llm: LLM) -> None:
    """Three depths of one haystack against each prompt on its own; the count is that of a prefix tree's nodes."""
    samples = column(llm, 300, [0.0, 80.0, 100.0])
    with counted(llm.model) as lengths:
        together = decode(llm, samples)
    prefilled = sum(n for n in lengths if n > 1)
    assert prefilled < 0.8 * sum(len(sample.ids) for sample in samples)
    for row, sample in enumerate(samples):
        equal(together, row, decode(llm, [sample]), 0)


prompt = st.lists(st.integers(5, 7), min_size=2, max_size=12)


@given(st.lists(prompt, min_size=1, max_size=6), st.integers(1, 5))
@torch.inference_mode()
def test_each_prefix_runs_once_and_keys_are_those_of_single_prompts(
    tiny: LLM, prompts: list[list[int]], chunk: int
) -> None:
    """Whatever prompts there are and whatever their order, with chunks of any size."""
    samples = [Sample(row, str(row), ids, [], 1, "", "") for row, ids in enumerate(prompts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill_module, "SHORTEST_SHARED", 1)
        with counted(tiny.model) as lengths:
            together = pad(samples, 0, torch.device("cpu"))
            cache = prefill_prompts(tiny.model, together, together.width, chunk=chunk)
    distinct = {tuple(ids[:n]) for ids in prompts for n in range(1, len(ids))}
    assert sum(lengths) == len(distinct)
    assert max(lengths) <= chunk
    for row, ids in enumerate(prompts):
        keys = tiny.model(torch.tensor([ids[:-1]])).past_key_values
        for layer, truth in zip(cache.layers, keys.layers, strict=True):
            mine: Tensor = layer.keys[row, :, together.width - len(ids) :]
            torch.testing.assert_close(mine, truth.keys[0], atol=1e-5, rtol=1e-5)


def means_of(tiny: LLM, samples: list[Sample]) -> Means:
    """Mean outputs over prompts that are prefilled together."""
    places = PromptPlaces(tiny, len(samples), max(len(sample.ids) for sample in samples), "mean")
    for place, sample in enumerate(samples):
        places.admit(place, sample)
    assert places.means is not None
    return places.means


@torch.inference_mode()
def test_mean_outputs_are_those_of_full_prompts(tiny: LLM) -> None:
    """Prompts of one batch that share a prefix: each mean takes all of its prompt's positions."""
    ids = torch.randint(5, 400, (12,), generator=torch.Generator().manual_seed(1)).tolist()
    samples = [Sample(row, str(row), [*ids, *range(9, 12 + row)], [], 1, "", "") for row in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill_module, "SHORTEST_SHARED", 1)
        together = means_of(tiny, samples)
    for row, sample in enumerate(samples):
        for layer, mean in means_of(tiny, [sample]).items():
            torch.testing.assert_close(together[layer][row], mean[0], atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def tiny(tiny_llm_folder: Path) -> LLM:
    return LLM(str(tiny_llm_folder))


@pytest.mark.parametrize("length", [40, 12])
def test_shared_prefixes_under_sliding_windows(llm: LLM, tmp_path: Path, length: int) -> None:
    """Beyond the window of 16 tokens each prompt runs in full; within it they share their prefix."""
    model = LLM(str(save(FAMILIES["gemma3"], llm.tokenizer, tmp_path)), prefill_chunk=7)
    ids = torch.randint(5, 400, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    samples = [Sample(row, str(row), [*ids[:-1], row + 9], [(2, 5)], 3, "", "") for row in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill_module, "SHORTEST_SHARED", 1)
        with counted(model.model) as lengths:
            together = decode(model, samples, ExcludedKeys(1, 1))
    assert sum(lengths) - 3 == (length - 1) * (2 if length > 16 else 1)
    for row, sample in enumerate(samples):
        equal(together, row, decode(model, [sample], ExcludedKeys(1, 1)), 0)


@torch.inference_mode()
def test_long_rope_keeps_to_one_set_of_factors_for_each_sample(llm: LLM, tmp_path: Path) -> None:
    """Short and long prompts in one batch, in chunks shorter than the border, one so near that its answer crosses it.

    The last has a short answer: it runs along beyond the border until the first ends, and must not change its rotation.
    """
    folder = save(Family("Phi3", LONGROPE), llm.tokenizer, tmp_path)
    model, eager = LLM(str(folder), prefill_chunk=9), LLM(str(folder), attention="eager")
    generator = torch.Generator().manual_seed(1)
    lengths, budgets = (20, 60, BORDER - 2, BORDER - 3), (12, 6, 6, 3)
    prompts = [torch.randint(5, 400, (n,), generator=generator).tolist() for n in lengths]
    samples = [Sample(row, str(row), ids, [(3, 8)], budgets[row], "", "") for row, ids in enumerate(prompts)]
    decoded = decode(model, samples, ExcludedKeys(1, 2))
    for row, sample in enumerate(samples):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        truth = reference.replay(eager.model, sample.ids, answer)
        agrees(decoded.tokens[row, : len(answer)], truth["logits"], 1e-4)
        torch.testing.assert_close(decoded.hidden[row, : len(answer)], truth["hidden"], atol=1e-4, rtol=1e-4)
        for step, rows in enumerate(truth["attention"]):
            agrees(decoded.argmax[row, step], rows, 1e-5)
        equal(decoded, row, decode(model, [sample], ExcludedKeys(1, 2)), 0)
    found = generate_ablated(model, samples, [NoAblation()], DynamicHeads())
    for row, n in enumerate(decoded.lengths):
        assert found.of(row, 0).tokens.tolist() == decoded.tokens[row, :n].tolist()
    for n in (20, 60):  # both sets are back
        ids = torch.tensor([prompts[1][:n]])
        torch.testing.assert_close(model.model(ids).logits, eager.model(ids).logits, atol=1e-4, rtol=1e-4)
