"""Ablation by continuous batching against all prompts in one batch, and against single prompts."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extract.generation import DynamicHeads, generate_ablated
from extract.generation import prefill as prefill_module
from extract.generation.ablation.output import AblatedGenerations
from extract.generation.ablation.prompt_places import PromptPlaces
from extract.generation.ablation.two_passes import TwoPassDecoding
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import Sample
from tests.extract.generation.test_synchronisations import conditions
from tests.helpers.emulated_device import emulated_device
from tests.helpers.families import ending_llms

NAMES = ("llama-gqa", "gemma2", "longrope")
ENDS = tuple(range(2, 500, 29))
"""So many end tokens that random models soon generate one."""
SETTINGS: dict[str, tuple[DynamicHeads, Any, Any]] = {
    "copy_paste": (DynamicHeads("copy_paste"), "zero", "masked"),
    "reasoning": (DynamicHeads("reasoning", 0.05, sink=1, local=9), "mean", "masked"),
    "contribution": (DynamicHeads("contribution", 0.01), "zero", "clean"),
}


class Opening(ForcedOpening):
    """Three tokens of the tiny vocabulary, after two answers of three."""

    def tokens(self, generated: Sequence[int]) -> list[int]:
        return [] if sum(generated) % 3 == 0 else [5, 6, 9]


@pytest.fixture(scope="module")
def models(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LLM]:
    return ending_llms(NAMES, ENDS, llm.tokenizer, tmp_path_factory.mktemp("families"))


@pytest.fixture(autouse=True, scope="module")
def _short_prefixes() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill_module, "SHORTEST_SHARED", 5)
        yield


def prompts(count: int, seed: int = 0, most: int = 20) -> list[Sample]:
    """Prompts of 1 to 60 tokens with answers of 1 to `most`; some with a common prefix."""
    rng = random.Random(seed)
    prefix, made = [rng.randrange(5, 400) for _ in range(20)], []
    for number in range(count):
        ids = [rng.randrange(5, 400) for _ in range(rng.choice([1, rng.randint(2, 30), rng.randint(2, 30)]))]
        ids = [*prefix, *ids] if rng.random() < 0.4 else ids
        # Evidence of some prompts ends with their last token, which moves with the answer.
        evidence = [(max(0, len(ids) - 6), len(ids) - rng.randint(0, 1))] if len(ids) > 1 else []
        made.append(Sample(3 * number + 1, str(number), ids, evidence, rng.randint(1, most), "", ""))
    return made


def generated(
    llm: LLM, samples: Sequence[Sample], setting: str, slots: int | None, forced: bool = True
) -> AblatedGenerations:
    heads, operator, keep = SETTINGS[setting]
    opening = Opening(llm.tokenizer, str, limit=6) if forced else None
    return generate_ablated(llm, samples, conditions(), heads, operator, keep, opening, slots)


def assert_same(one: AblatedGenerations, other: AblatedGenerations, rows: Sequence[int] | None = None) -> None:
    """Equal answers, heads and continuations; `rows` are the samples of `one` that `other` has."""
    for place, row in enumerate(range(len(one.lengths)) if rows is None else rows):
        assert one.lengths[row].equal(other.lengths[place])
        for condition, steps in enumerate(other.lengths[place].tolist()):
            for name in ("tokens", "before", "ablated", "after"):
                mine, theirs = (
                    getattr(one, name)[row, condition, :steps],
                    getattr(other, name)[place, condition, :steps],
                )
                assert mine.equal(theirs), (row, condition, name)
        assert one.continuations[row] == other.continuations[place]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_one_batch_and_of_single_prompts(models: dict[str, LLM], name: str, setting: str) -> None:
    """Prompts of one token, with a common prefix, with and without evidence; forced openings; windows, LongRoPE."""
    samples, forced = prompts(7, most=14), name != "gemma2"
    together = generated(models[name], samples, setting, None, forced)
    for slots in (2, 3):
        assert_same(together, generated(models[name], samples, setting, slots, forced))
    for row in range(0, len(samples), 3):
        assert_same(together, generated(models[name], [samples[row]], setting, None, forced), [row])
    assert len(set(together.lengths.flatten().tolist())) > 4
    assert together.ablated.any()
    continued = {str(tokens) for row in together.continuations for tokens in row}
    assert len(continued) > 4 if forced else continued == {"None"}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 8),
    slots=st.integers(1, 8),
    most=st.sampled_from([1, 6, 16]),
    setting=st.sampled_from(list(SETTINGS)),
    ends=st.sampled_from([(), ENDS, tuple(range(2, 500, 4))]),
)
def test_slots_change_nothing(
    models: dict[str, LLM], seed: int, count: int, slots: int, most: int, setting: str, ends: tuple[int, ...]
) -> None:
    """Whatever prompts, budgets, end tokens and slots there are."""
    llm, samples = models["llama-gqa"], prompts(count, seed, most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm, "_ends", ends)
        assert_same(generated(llm, samples, setting, None), generated(llm, samples, setting, slots))


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_no_more_prompts_than_slots_and_fewer_steps_than_in_batches(
    models: dict[str, LLM], slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, samples = models["llama-gqa"], prompts(12, most=9)
    steps, held, busy, came = list[int](), list[int](), list[int](), list[int]()
    step, admit = TwoPassDecoding._step, PromptPlaces.admit

    def counted(self: TwoPassDecoding, number: int, going: Tensor) -> Any:
        steps.append(len(self.answers))
        held.append(max(keys.shape[0] for keys, _ in self.prompt_keys))
        if len(came) < len(samples):
            busy.append(len(self.place[going].unique()))
        return step(self, number, going)

    def counted_prompt(self: PromptPlaces, place: int, sample: Sample) -> None:
        came.append(sample.index)
        admit(self, place, sample)

    monkeypatch.setattr(TwoPassDecoding, "_step", counted)
    monkeypatch.setattr(PromptPlaces, "admit", counted_prompt)
    found = generated(llm, samples, "copy_paste", slots)
    assert max(steps) <= slots * len(conditions())
    assert max(held) == slots
    assert set(busy) == {slots}  # no place is idle while prompts wait
    continuous = len(steps)
    steps.clear()
    for first in range(0, len(samples), slots):
        generated(llm, samples[first : first + slots], "copy_paste", None)
    assert continuous < len(steps) if slots > 1 else continuous == len(steps)
    assert len(set(found.lengths.flatten().tolist())) > 4


def test_a_single_place_needs_neither_padding_nor_a_copy(
    models: dict[str, LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths, admit = list[int](), PromptPlaces.admit

    def counted(self: PromptPlaces, place: int, sample: Sample) -> None:
        admit(self, place, sample)
        widths.append(self.cache.get_seq_length())

    monkeypatch.setattr(PromptPlaces, "admit", counted)
    samples = prompts(6)
    generated(models["llama-gqa"], samples, "copy_paste", 1)
    assert widths == [max(len(sample.ids) - 1, 1) for sample in samples]


@pytest.mark.parametrize("setting", SETTINGS)
def test_steps_wait_twice_and_nothing_lies_in_two_places(models: dict[str, LLM], setting: str) -> None:
    """A change of prompts waits, too; the steps between do for heads and tokens alone."""
    llm, waits = LLM(models["llama-gqa"].name), list[int]()  # its tensors are marked as those of the device
    llm._ends = ()
    with emulated_device(llm.model) as device:
        for budget in (1, 2, 5):  # how the model reads out is found once
            device.waits.clear()
            generated(llm, [replace(sample, budget=budget) for sample in prompts(6)], setting, 3, forced=False)
            waits.append(len(device.waits))
        llm._ends = ENDS
        found = generated(llm, prompts(6, most=8), setting, 2)
    assert waits[2] - waits[1] == 2 * 3 * 2  # two values of three further steps, of two batches
    assert_same(found, generated(models["llama-gqa"], prompts(6, most=8), setting, None))
