"""Ablation decoding against full forwards without any cache, and its laws."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from extract.generation import DynamicHeads, decode, generate_ablated
from extract.generation.ablation.output import AblatedGenerations
from extract.llm import LLM
from extract.prompts import find_token_span, tokenize_with_offsets
from extract.tasks import Sample
from probe.experiments.ablation import (
    AblateDynamic,
    AblateDynamicMinusStatic,
    AblateRandom,
    AblateStatic,
    AblateStaticMinusDynamic,
    Condition,
    NoAblation,
    Preparation,
)
from probe.heads import HeadCounts, Ranking
from tests.helpers import reference

STEPS = 2
STATIC = (18 * 9 + 6, 17 * 9 + 3, 17 * 9 + 4, 18 * 9 + 7, 23 * 9 + 2, 100)
Choose = Callable[[list[int]], set[int]]


def prepared(*conditions: Condition) -> list[Condition]:
    scores = np.zeros(270)
    scores[list(STATIC)] = np.arange(len(STATIC), 0, -1)
    for condition in conditions:
        condition.prepare(
            Preparation(Ranking(scores.reshape(30, 9), True, "test"), HeadCounts((0.0, 1.0)), average=4.0)
        )
    return list(conditions)


def rules() -> dict[Condition, Choose]:
    """Every condition beside the same rule on plain sets."""
    static, shuffled = set(STATIC[:4]), torch.randperm(270, generator=torch.Generator().manual_seed(3)).tolist()
    rules: dict[Condition, Choose] = {
        NoAblation(): lambda _: set(),
        AblateDynamic(): set,
        AblateDynamic(top=2): lambda heads: set(heads[:2]),
        AblateStatic(): lambda _: static,
        AblateStaticMinusDynamic(): lambda heads: static - set(heads),
        AblateDynamicMinusStatic(): lambda heads: set(heads) - static,
        AblateRandom(seed=3, exclude_dynamic=True): lambda heads: set([h for h in shuffled if h not in heads][:4]),
        AblateRandom(n=40, seed=3): lambda _: set(shuffled[:40]),
    }
    prepared(*rules)
    return rules


def short_sample(llm: LLM, number: int, steps: int = STEPS) -> Sample:
    """A short needle, asked for and half answered already: every step is one of copying."""
    key = "".join(random.Random(f"short:{number}").choices("0123456789abcdef", k=8))
    needle = f"The magic word is {key}."
    filler = "The sky over the quiet town was grey and cold that morning. "[: 12 * (number % 4)]
    text = f"{filler}{needle} It rained. What is the magic word? The word is {key[: 1 + number % 3]}"
    prompt = tokenize_with_offsets(llm.tokenizer, text, special=False)
    return Sample(number, str(number), prompt.ids, [find_token_span(prompt, needle)], steps, "", key)


@pytest.fixture(scope="module")
def eager() -> LLM:
    return LLM(attention="eager")


def same(
    found: AblatedGenerations, row: int, condition: int, slow: list[tuple[int, list[int], set[int], list[int]]]
) -> None:
    steps = len(slow)
    assert int(found.lengths[row, condition]) == steps
    assert found.tokens[row, condition, :steps].tolist() == [token for token, *_ in slow]
    for step, (_, before, ablated, after) in enumerate(slow):
        for heads, wanted in ((found.before, before), (found.ablated, ablated), (found.after, after)):
            assert heads[row, condition, step].nonzero().flatten().tolist() == sorted(wanted)


@pytest.mark.slow
def test_ten_prompts_under_every_condition_equal_full_forwards(llm: LLM, eager: LLM) -> None:
    """Tokens and heads of each step: neither a cache, nor a batch, nor a shared prompt in the reference."""
    samples, conditions = [short_sample(llm, number) for number in range(10)], rules()
    found = generate_ablated(llm, samples, list(conditions), DynamicHeads())
    for row, sample in enumerate(samples):
        slow = reference.SlowAblation(eager.model, set(range(*sample.evidence[0])))
        for number, choose in enumerate(conditions.values()):
            same(found, row, number, slow.generate(sample.ids, STEPS, llm.end_tokens, choose))
    assert found.before[:, 0].sum() > 2 * len(samples)  # heads are at work,
    assert (found.tokens[:, 1] != found.tokens[:, 0]).any(dim=1).float().mean() >= 0.5  # and ablating them shows


@pytest.mark.parametrize(
    ("operator", "keep", "eq2"),
    [("mean", "clean", None), ("zero", "masked", None), ("zero", "clean", (0.4, 2, 6))],
)
def test_options_equal_full_forwards(llm: LLM, eager: LLM, operator: str, keep: str, eq2: object) -> None:
    samples, conditions = [short_sample(llm, 1, steps=3)], rules()
    chosen = [c for c in conditions if type(c) in (AblateDynamic, AblateStatic) or c.name.startswith("random 40")]
    heads = DynamicHeads("reasoning", *eq2) if eq2 else DynamicHeads()  # type: ignore[misc]
    found = generate_ablated(llm, samples, chosen, heads, operator, keep)  # type: ignore[arg-type]
    for row, sample in enumerate(samples):
        slow = reference.SlowAblation(eager.model, set(range(*sample.evidence[0])), eq2)  # type: ignore[arg-type]
        fill = slow.mean_outputs(sample.ids) if operator == "mean" else None
        for number, condition in enumerate(chosen):
            answer = slow.generate(sample.ids, 3, llm.end_tokens, conditions[condition], fill, keep)
            same(found, row, number, answer)
    assert found.ablated.any()


def test_no_heads_is_plain_greedy_decoding_and_all_of_k_is_dynamic(llm: LLM) -> None:
    samples = [short_sample(llm, number, steps=10) for number in range(3)]
    plain = decode(llm, samples)
    found = generate_ablated(
        llm,
        samples,
        prepared(NoAblation(), AblateDynamic(top=0), AblateDynamic(), AblateDynamic(top=270)),
        DynamicHeads(),
    )
    for row, n in enumerate(plain.lengths):
        assert found.tokens[row, 0, :n].tolist() == plain.tokens[row, :n].tolist()
        assert torch.equal(found.before[row, 0, :n], plain.copy_paste[row, :n])
    assert not found.ablated[:, :2].any()
    for name in ("lengths", "tokens", "before", "ablated", "after"):
        values = getattr(found, name)
        assert torch.equal(values[:, 0], values[:, 1]), name
        assert torch.equal(values[:, 2], values[:, 3]), name
    assert (found.tokens[:, 2] != found.tokens[:, 0]).any()


def test_batches_of_samples_and_of_conditions_change_nothing(llm: LLM) -> None:
    samples = [replace(short_sample(llm, number), budget=3 + number) for number in range(2)]
    conditions = prepared(NoAblation(), AblateDynamic(), AblateRandom(n=40))
    together = generate_ablated(llm, samples, conditions, DynamicHeads())
    for row, sample in enumerate(samples):
        for number, condition in enumerate(conditions):
            single = generate_ablated(llm, [sample], [condition], DynamicHeads())
            n = int(single.lengths[0, 0])
            assert int(together.lengths[row, number]) == n
            for name in ("tokens", "before", "ablated", "after"):
                assert torch.equal(getattr(together, name)[row, number, :n], getattr(single, name)[0, 0, :n]), name
