"""Continuous batching against decoding all prompts together, and against one prompt at a time."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from extract.generation import Batch, Decoded, decode, decode_continuously
from extract.generation import continuous as continuous_module
from extract.generation import prefill as prefill_module
from extract.generation.greedy import scored_step
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import Sample
from tests.extract.attention.test_families import EXCLUDED
from tests.helpers.emulated_device import emulated_device
from tests.helpers.families import ending_llms

NAMES = ("llama-gqa", "gemma2", "mistral", "longrope")
ENDS = tuple(range(2, 500, 11))
"""So many end tokens that random models soon generate one."""


class Watch:
    """Counts tokens, and the rows of steps."""

    def __init__(self) -> None:
        self.tokens, self.rows = 0, list[int]()

    def prefilled(self, tokens: int) -> None:
        self.tokens += tokens

    def decoded(self, rows: int) -> None:
        self.rows.append(rows)


class Opening(ForcedOpening):
    """Two tokens of the tiny vocabulary, after answers of an even number of tokens."""

    def tokens(self, generated: Sequence[int]) -> list[int]:
        return [] if len(generated) % 2 else [5, 6]


@pytest.fixture(scope="module")
def models(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LLM]:
    return ending_llms(NAMES, ENDS, llm.tokenizer, tmp_path_factory.mktemp("families"))


@pytest.fixture(autouse=True)
def short_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill_module, "SHORTEST_SHARED", 5)


def prompts(count: int, seed: int = 0, shortest: int = 1) -> list[Sample]:
    """Prompts of 1 to 45 tokens with answers of 1 to 30; some with a common prefix, some with forced tokens."""
    rng = random.Random(seed)
    prefix = [rng.randrange(5, 400) for _ in range(20)]
    made = []
    for number in range(count):
        ids = [rng.randrange(5, 400) for _ in range(rng.choice([shortest, rng.randint(shortest + 1, 45)]))]
        ids = [*prefix, *ids] if rng.random() < 0.4 else ids
        budget = rng.randint(1, 30)
        forced = [rng.randrange(5, 400) for _ in range(budget)] if rng.random() < 0.2 else None
        evidence = [(len(ids) // 3, len(ids) // 3 + 3)] if len(ids) > 9 else []
        made.append(Sample(number, str(number), ids, evidence, budget, "", "", forced))
    return made


def assert_equal_rows(one: Decoded, other: Decoded) -> None:
    """Tokens and argmax equal, scores and states within the tolerances of batches of other sizes."""
    assert one.lengths == other.lengths
    assert one.continuations == other.continuations
    for number, length in enumerate(one.lengths):
        for name in ("tokens", "copy_paste", "argmax"):
            assert getattr(one, name)[number, :length].equal(getattr(other, name)[number, :length]), name
        for name in ("hidden", "reasoning", "contribution"):
            if getattr(one, name) is not None:
                pair = (getattr(decoded, name)[number, :length] for decoded in (one, other))
                torch.testing.assert_close(*pair, atol=1e-4, rtol=0, equal_nan=True)


@pytest.fixture(scope="module")
def together(models: dict[str, LLM]) -> dict[str, Decoded]:
    """Each model's rows of the same prompts, decoded in one batch."""
    return {
        name: decode(llm, prompts(12), EXCLUDED, Opening(llm.tokenizer, str, limit=4), sources="evidence")
        for name, llm in models.items()
    }


def continuously(llm: LLM, slots: int, watch: Watch | None = None) -> Decoded:
    opening = Opening(llm.tokenizer, str, limit=4)
    return decode_continuously(llm, prompts(12), slots, EXCLUDED, opening, watch, contribution=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slots", [1, 2, 3, 12])
def test_rows_are_those_of_one_batch(
    models: dict[str, LLM], together: dict[str, Decoded], name: str, slots: int
) -> None:
    """Prompts of one token, with a common prefix, with forced tokens, with and without evidence; windows, LongRoPE."""
    assert_equal_rows(continuously(models[name], slots), together[name])
    assert len(set(together[name].lengths)) > 4
    assert len({str(tokens) for tokens in together[name].continuations}) > 3


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_single_prompts(models: dict[str, LLM], seed: int) -> None:
    samples = prompts(5, seed)
    found = decode_continuously(models["llama-gqa"], samples, 2, EXCLUDED)
    for number, sample in enumerate(samples):
        single = decode(models["llama-gqa"], [sample], EXCLUDED)
        (length,) = single.lengths
        assert found.lengths[number] == length
        assert found.tokens[number, :length].equal(single.tokens[0, :length])
        torch.testing.assert_close(found.hidden[number, :length], single.hidden[0, :length], atol=1e-4, rtol=0)


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_no_row_is_run_after_its_end(models: dict[str, LLM], slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of every step is a row of the result, and no place is empty while prompts wait."""
    llm, samples, sizes, watch = models["llama-gqa"], prompts(12), list[int](), Watch()

    def counted(llm: LLM, batch: Batch, *arguments: Any) -> Any:
        sizes.append(len(batch.tokens))
        return scored_step(llm, batch, *arguments)

    monkeypatch.setattr(continuous_module, "scored_step", counted)
    found = decode_continuously(llm, samples, slots, EXCLUDED, watch=watch)
    assert sum(sizes) == sum(found.lengths) == sum(watch.rows)
    assert sizes == sorted(sizes, reverse=True)  # full until none waits, then ever fewer rows
    assert sizes[0] == slots
    assert max(found.lengths) * len(samples) > 1.5 * sum(found.lengths)  # as one batch runs them
    assert watch.tokens == sum(len(sample.ids) - 1 or 1 for sample in samples)


@pytest.mark.parametrize("lag", [1, 3])
def test_a_gpu_runs_only_the_steps_that_were_queued(
    models: dict[str, LLM], together: dict[str, Decoded], lag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()

    def counted(llm: LLM, batch: Batch, *arguments: Any) -> Any:
        sizes.append(len(batch.tokens))
        return scored_step(llm, batch, *arguments)

    llm = LLM(models["llama-gqa"].name)  # its tensors are marked as those of the device
    llm._ends = ENDS
    monkeypatch.setattr(continuous_module, "scored_step", counted)
    with emulated_device(llm.model, lag):
        assert_equal_rows(continuously(llm, 3), together["llama-gqa"])
    rows = sum(together["llama-gqa"].lengths) + sum(map(len, filter(None, together["llama-gqa"].continuations)))
    assert rows < sum(sizes) <= rows + (lag * 3 + 1) * 2 * 12


def test_steps_do_not_wait(models: dict[str, LLM]) -> None:
    """A change of rows does; the steps between do not."""
    llm, waits = LLM(models["llama-gqa"].name), list[int]()
    llm._ends = ()
    with emulated_device(llm.model) as device:
        for budget in (3, 9):
            device.waits.clear()
            samples = [replace(sample, budget=budget, forced=None) for sample in prompts(6)]
            decode_continuously(llm, samples, 3, EXCLUDED)
            waits.append(len(device.waits))
    assert waits[0] == waits[1] > 0
