"""Decoding loops on an emulated GPU: where the host waits for it, and that reading values later changes no row."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from extract.generation import (
    ContextMaskedLLM,
    DynamicHeads,
    GenerationOutput,
    GenerationRequest,
    decode,
    generate_ablated,
    masked_view,
)
from extract.llm import LLM
from extract.prompts import ForcedOpening
from extract.tasks import Sample
from extract.utils.host_reads import LAG, DelayedReads, read_lag
from probe.experiments.ablation import AblateDynamic, AblateRandom, AblateStatic, Condition, Preparation
from probe.heads import HeadCounts, Ranking
from tests.extract.attention.test_families import EXCLUDED, HEADS, LAYERS, samples
from tests.helpers.emulated_device import emulated_device, on_device
from tests.helpers.families import FAMILIES, save

ENDS = tuple(range(2, 500, 7))
"""So many end tokens that random models soon generate one."""
DEVICE = torch.device("cpu")
NAMES = ("llama-gqa", "gemma2")


@pytest.fixture(scope="module")
def folders(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("families")
    return {name: str(save(FAMILIES[name], llm.tokenizer, folder / name)) for name in NAMES}


def ending(folder: str, ends: tuple[int, ...]) -> LLM:
    """The model with other end tokens."""
    llm = LLM(folder, prefill_chunk=13)
    llm._ends = ends
    return llm


def budgets(*steps: int) -> list[Sample]:
    return [Sample(s.index, s.id, s.ids, s.evidence, n, "", "") for s, n in zip(samples(1), steps, strict=True)]


class TestEmulation:
    """What the emulated device counts is what a GPU would wait for."""

    @pytest.mark.parametrize(
        ("operation", "waits"),
        [
            (lambda x: x.sum().item(), ["item"]),
            (lambda x: bool((x > 0).all()), ["is_nonzero"]),
            (lambda x: x.tolist(), ["tolist"]),
            (lambda x: x.cpu(), ["cpu"]),
            (lambda x: x[x > 0], ["index by a mask"]),
            (lambda x: x[torch.tensor([0])], ["index by the host's indices"]),
            (lambda x: x.nonzero(), ["nonzero"]),
            (lambda _: torch.tensor([1.0], device=DEVICE), ["tensor"]),
            (lambda _: torch.ones(1).to(DEVICE), ["to"]),
            (lambda _: torch.ones(1).to(DEVICE, non_blocking=True), []),
            (lambda x: x.argmax() + x[torch.arange(1, device=DEVICE)], []),
            (lambda _: torch.ones(3).nonzero().tolist(), []),
        ],
    )
    def test_waits_are_counted(self, operation: Callable[[Any], object], waits: list[str]) -> None:
        weight = torch.nn.Linear(3, 2)
        with torch.inference_mode(), emulated_device(weight) as device:
            operation(weight.bias)
        assert device.waits == waits

    def test_tensors_in_two_places_fail(self) -> None:
        weight = torch.nn.Linear(3, 2)
        with torch.inference_mode(), emulated_device(weight), pytest.raises(AssertionError, match="of the device"):
            weight(torch.ones(1, 3))

    def test_a_copy_on_the_host_is_the_hosts(self) -> None:
        weight = torch.nn.Linear(3, 2)
        with torch.inference_mode(), emulated_device(weight):
            moved = torch.ones(1, 3).to(DEVICE, non_blocking=True)
            assert on_device(weight(moved))
            assert not on_device(weight(moved).cpu())


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_delayed_reads_give_every_value_once_in_order(lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.utils.host_reads.read_lag", lambda _: lag)
    reads, got = DelayedReads(DEVICE), list[list[int]]()
    for step in range(5):
        got.append([int(value) for value in reads.put(torch.tensor(step))])
    assert got == [[step - lag] if step >= lag else [] for step in range(5)]
    assert [int(value) for value in reads.rest()] == list(range(5 - lag, 5))


def test_a_cpu_reads_at_once_and_a_gpu_while_the_next_step_runs() -> None:
    assert (read_lag(torch.device("cpu")), read_lag(torch.device("cuda"))) == (0, LAG)
    assert LAG >= 1


@pytest.mark.parametrize(("name", "sources"), [("llama-gqa", None), ("llama-gqa", "evidence"), ("gemma2", "evidence")])
def test_no_step_of_extraction_waits(folders: dict[str, str], name: str, sources: Any) -> None:
    llm, waits = ending(folders[name], ()), list[int]()
    with emulated_device(llm.model) as device:
        decode(llm, samples(1), EXCLUDED, sources=sources)  # how the model reads out is found once
        for steps in (2, 7):
            device.waits.clear()
            decode(llm, samples(steps), EXCLUDED, sources=sources)
            waits.append(len(device.waits))
    assert waits[0] == waits[1] > 0


class Watch:
    """Counts rows and steps."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def prefilled(self, tokens: int) -> None:
        pass

    def decoded(self, rows: int) -> None:
        self.rows.append(rows)


@pytest.mark.parametrize("lag", [1, 3])
def test_reading_later_changes_no_row(folders: dict[str, str], lag: int) -> None:
    """Steps after the end of all answers are cut off, and not reported."""
    prompts, watches, found = budgets(16, 16, 4), (Watch(), Watch()), []
    endless = decode(ending(folders["llama-gqa"], ()), prompts, EXCLUDED).tokens
    ends = int(endless[0, 5]), int(endless[1, 8])
    one, other = (ending(folders["llama-gqa"], ends) for _ in range(2))
    found.append(decode(one, prompts, EXCLUDED, None, watches[0], "evidence"))
    with emulated_device(other.model, lag):
        found.append(decode(other, prompts, EXCLUDED, None, watches[1], "evidence"))
    for name in ("tokens", "hidden", "copy_paste", "reasoning", "argmax"):
        torch.testing.assert_close(*(getattr(one, name) for one in found), rtol=0, atol=0, equal_nan=True)
    # Contributions are computed for several steps together, and rounded according to their number.
    torch.testing.assert_close(*(one.contribution for one in found), rtol=1e-5, atol=1e-5)
    assert found[0].lengths == found[1].lengths
    assert 4 < max(found[0].lengths) < 16  # an end token ended the batch
    assert watches[0].rows == watches[1].rows
    assert sum(watches[0].rows) == sum(found[0].lengths)


@pytest.mark.parametrize("lag", [1, 3])
def test_reading_later_changes_no_continuation(folders: dict[str, str], lag: int) -> None:
    one, other = (ending(folders["llama-gqa"], ENDS) for _ in range(2))
    forced = Opening(one.tokenizer, str, limit=9)
    plain = decode(one, budgets(12, 12, 4), EXCLUDED, forced)
    with emulated_device(other.model, lag):
        late = decode(other, budgets(12, 12, 4), EXCLUDED, forced)
    assert plain.continuations == late.continuations
    assert any(plain.continuations)


class Opening(ForcedOpening):
    """Two tokens of the tiny vocabulary."""

    def tokens(self, generated: Sequence[int]) -> list[int]:
        return [5, 6] if generated else []


def conditions() -> list[Condition]:
    made: list[Condition] = [AblateDynamic(), AblateStatic(per_step=True)]
    made.append(AblateRandom(n=3, exclude_dynamic=True))
    ranking = Ranking(np.random.default_rng(0).random((LAYERS, HEADS)), True, "sampled")
    for condition in made:
        condition.prepare(Preparation(ranking, HeadCounts((0.0, 1.0, 2.0)), average=2.0))
    return made


@pytest.mark.parametrize(
    ("target", "operator", "keep"),
    [("copy_paste", "zero", "clean"), ("reasoning", "mean", "masked"), ("contribution", "zero", "clean")],
)
def test_a_step_of_ablation_waits_for_heads_and_tokens_alone(
    folders: dict[str, str], target: Any, operator: Any, keep: Any
) -> None:
    llm, other, counts = ending(folders["llama-gqa"], ()), ending(folders["llama-gqa"], ()), []
    heads = DynamicHeads(target, 0.01, EXCLUDED.sink, EXCLUDED.local)
    with emulated_device(llm.model) as device:
        for steps in (1, 2, 6):
            device.waits.clear()
            found = generate_ablated(llm, samples(steps), conditions(), heads, operator, keep)
            counts.append(Counter(device.waits))
    assert counts[2] - counts[1] == Counter(cpu=2 * 4)
    assert not counts[1] - counts[2]
    plain = generate_ablated(other, samples(6), conditions(), heads, operator, keep)
    for name in ("lengths", "tokens", "before", "ablated", "after"):
        assert getattr(found, name).equal(getattr(plain, name)), name


def requests(limits: tuple[int, ...], mask: Any) -> list[GenerationRequest]:
    ids = torch.randint(5, 500, (52,), generator=torch.Generator().manual_seed(0)).tolist()
    windows: list[list[tuple[int, int]]] = [[], [(8, 14), (20, 33)], [(9, 12)], [(6, 40)]]
    return [
        GenerationRequest(number % 2, masked_view(ids, (6, 40), shown, mask), limit, lambda tokens: tokens[-1] % 7 == 0)
        for number, (shown, limit) in enumerate(zip(windows, limits, strict=True))
    ]


@pytest.mark.parametrize("mask", ["packed", "in_place"])
def test_no_step_of_masked_generation_waits(folders: dict[str, str], mask: Any) -> None:
    """A prompt with hidden tokens may wait once; its decode steps do not."""
    llm, waits = ending(folders["llama-gqa"], ()), list[int]()
    with emulated_device(llm.model) as device:
        for limit in (2, 9):
            device.waits.clear()
            found = ContextMaskedLLM(llm, chunk=7).generate(requests((2, limit, limit, limit), mask))
            waits.append(len(device.waits))
    assert max(len(one.tokens) for one in found) > 4
    assert waits == ([6, 6] if mask == "in_place" else [0, 0])


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("mask", ["packed", "in_place", "concat"])
def test_reading_later_changes_no_masked_generation(folders: dict[str, str], mask: Any, lag: int) -> None:
    """Nor the cached keys from which later requests continue, whose rows may have moved meanwhile."""
    one, other = (ending(folders["llama-gqa"], ENDS) for _ in range(2))

    def twice(llm: LLM) -> list[list[GenerationOutput]]:
        masked = ContextMaskedLLM(llm, chunk=7)
        first = masked.generate(requests((2, 12, 5, 20), mask))
        longer = [
            GenerationRequest(r.question, r.view.extended(done.tokens), 9, r.stop)
            for r, done in zip(requests((2, 12, 5, 20), mask), first, strict=True)
        ]
        return [first, masked.generate(longer)]

    plain = twice(one)
    with emulated_device(other.model, lag):
        late = twice(other)
    for one_round, late_round in zip(plain, late, strict=True):
        assert [(done.tokens, done.ended) for done in one_round] == [(done.tokens, done.ended) for done in late_round]
        for done, later in zip(one_round, late_round, strict=True):  # batches of other sizes round otherwise
            assert done.entropies == pytest.approx(later.entropies, abs=1e-5)
    assert len({len(done.tokens) for done in plain[0]}) > 1


def test_ablated_answers_are_continued_on_the_device(folders: dict[str, str]) -> None:
    """Keys and rows that go on after a forced opening are found on the host; nothing lies in two places."""
    one, other = (ending(folders["llama-gqa"], ENDS) for _ in range(2))
    heads = DynamicHeads("copy_paste")
    forced = Opening(one.tokenizer, str, limit=5)
    plain = generate_ablated(one, budgets(9, 6, 3), conditions(), heads, "mean", "masked", forced)
    with emulated_device(other.model):
        late = generate_ablated(other, budgets(9, 6, 3), conditions(), heads, "mean", "masked", forced)
    assert plain.continuations == late.continuations
    assert any(continued for sample in plain.continuations for continued in sample)
    assert plain.tokens.equal(late.tokens)
