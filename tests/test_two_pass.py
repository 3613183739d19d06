"""Ablation decoding against full forwards without any cache, and its laws."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from extract.dynamic import DynamicHeads
from extract.llm import LLM
from extract.prompt import encode, locate
from extract.task import Sample
from extract.two_pass import ablate
from probe.conditions import Condition, Dynamic, DynamicMinusStatic, Known, Random, Static, StaticMinusDynamic, Unmasked
from probe.rankings import Ranking
from tests import reference

STEPS = 3
KNOWN = (18 * 9 + 6, 17 * 9 + 3, 17 * 9 + 4, 18 * 9 + 7, 23 * 9 + 2, 100)
Choose = Callable[[list[int]], set[int]]


def known() -> Known:
    scores = np.zeros(270)
    scores[list(KNOWN)] = np.arange(len(KNOWN), 0, -1)
    return Known(30, 9, Ranking(scores.reshape(30, 9), True, "test"), average=4)


def conditions() -> dict[Condition, Choose]:
    """Every condition beside the same rule on plain sets."""
    static, drawn = set(KNOWN[:4]), torch.randperm(270, generator=torch.Generator().manual_seed(3)).tolist()
    rules: dict[Condition, Choose] = {
        Unmasked(): lambda _: set(),
        Dynamic(): set,
        Dynamic(top=0): lambda _: set(),
        Dynamic(top=2): lambda heads: set(heads[:2]),
        Dynamic(top=300): set,
        Static(): lambda _: static,
        StaticMinusDynamic(): lambda heads: static - set(heads),
        DynamicMinusStatic(): lambda heads: set(heads) - static,
        Random(seed=3, exclude_dynamic=True): lambda heads: set([h for h in drawn if h not in heads][:4]),
        Random(n=40, seed=3): lambda _: set(drawn[:40]),
    }
    for condition in rules:
        condition.prepare(known())
    return rules


def short_sample(llm: LLM, number: int, steps: int = STEPS) -> Sample:
    """A short needle, asked for and half answered already: every step is one of copying."""
    key = "".join(random.Random(f"short:{number}").choices("0123456789abcdef", k=8))
    needle = f"The magic word is {key}."
    filler = "The sky over the quiet town was grey and cold that morning. "[: 12 * (number % 4)]
    text = f"{filler}{needle} It rained. What is the magic word? The word is {key[: 1 + number % 3]}"
    prompt = encode(llm.tokenizer, text, special=False)
    return Sample(number, str(number), prompt.ids, [locate(prompt, needle)], steps, "", key)


@pytest.fixture(scope="module")
def eager() -> LLM:
    return LLM(attention="eager")


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["zero", "mean"])
def test_ten_prompts_under_every_condition_equal_full_forwards(llm: LLM, eager: LLM, operator: str) -> None:
    """Token by token: neither a cache, nor a batch, nor a shared prefix in the reference."""
    samples = [short_sample(llm, number) for number in range(10 if operator == "zero" else 2)]
    rules = conditions()
    found = ablate(llm, samples, list(rules), DynamicHeads(), operator=operator)  # type: ignore[arg-type]
    silenced = 0
    for row, sample in enumerate(samples):
        slow = reference.SlowAblation(eager.model, set(range(*sample.evidence[0])))
        fill = slow.mean_outputs(sample.ids) if operator == "mean" else None
        for place, choose in enumerate(rules.values()):
            answer = slow.generate(sample.ids, STEPS, llm.end_tokens, choose, fill)
            assert found.tokens[row, place, : found.lengths[row, place]].tolist() == answer
            first = slow.dynamic(sample.ids)
            assert found.before[row, place, 0].nonzero().flatten().tolist() == sorted(first)
            assert found.silenced[row, place, 0].nonzero().flatten().tolist() == sorted(choose(first))
        silenced += len(slow.dynamic(sample.ids))
    assert silenced > 2 * len(samples)  # heads are at work
    changed = (found.tokens[:, 1] != found.tokens[:, 0]).any(dim=1)
    assert changed.float().mean() >= 0.5  # and silencing them shows
