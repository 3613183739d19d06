"""Algorithm 1 as a whole against an independent slow reference: no cache, one mask over the whole prompt."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from extract.attention import Slots
from extract.generation import ContextMaskedLLM, GenerationOutput, GenerationRequest, MaskMode, full_view
from extract.llm import LLM
from extract.scores import ExcludedKeys
from extract.tasks import MultiHopQA, QuestionTexts
from extract.tasks.sources.synthetic import SyntheticQA
from probe.rag import RIND, Decoding, Question, RagRunner, Run, RunSettings, Strategy, Windows, WithoutRAG, run_together
from probe.rag.requests import Steps
from probe.rag.strategies import RetrievalState
from probe.rag.strategies.head_strategies import (
    DynamicRandomHeadsStrategy,
    FixedRandomHeadsStrategy,
    HeadStrategy,
    OracleHeadsStrategy,
    reasoning_scores,
)
from tests.helpers import reference_rag


class Chosen(HeadStrategy):
    """The heads of a fixed list."""

    default_name = "chosen"

    def __init__(self, name: str, listed: list[int], windows: Windows, rind: RIND) -> None:
        super().__init__(name, windows, rind)
        self.listed = listed

    def heads(self, state: RetrievalState, count: int) -> list[int]:
        del state
        return self.listed[:count]


def questions(llm: LLM, count: int, seed: int, budget: int, **options: Any) -> tuple[MultiHopQA, list[Question]]:
    task = MultiHopQA(SyntheticQA(count, seed=seed), budget=budget, **options)
    task.prepare(llm)
    without = task.without_context()
    return task, [Question.from_task(task, without, number) for number in range(count)]


def listened(steps: Steps, generated: list[Sequence[int]]) -> Steps:
    """The run, which adds the tokens of each of its generations to a list."""
    reply = None
    while True:
        try:
            request = steps.send(reply)
        except StopIteration:
            return
        reply = yield request
        if isinstance(reply, GenerationOutput):
            generated.append(reply.tokens)


def by_reference(
    llm: LLM, run: Run, generated: list[Sequence[int]]
) -> tuple[list[int], list[dict[str, Any]], int, list[int] | None]:
    """The reference's tokens, rounds, stuck sentences and forced tokens for a run of chosen heads."""
    strategy = run.strategy
    assert isinstance(strategy, Chosen)
    assert isinstance(run.trigger, RIND)
    assert strategy.windows is not None
    windows, done = strategy.windows, run.settings
    own = reference_rag.Settings(
        threshold=run.trigger.threshold,
        attention=run.trigger.attention,
        k=windows.k,
        gap=windows.gap,
        width=windows.width,
        draft_length=done.decoding.draft_length,
        length=done.max_tokens,
        retries=done.decoding.retries,
        concat=done.decoding.mask == "concat",
        guesses=iter(generated),
    )

    def choose(hidden: Tensor, rows: Tensor) -> list[int]:
        del hidden, rows
        return strategy.listed[: windows.heads]

    ids = run.question.sample.ids
    tokens, rounds, stuck = reference_rag.reference_run(llm, ids, run.question.context, choose, own)
    forced = None
    if done.opening is not None:
        forced = reference_rag.reference_forced(llm, ids, tokens, rounds[-1]["hidden"], done.opening.limit, own)
    return tokens, rounds, stuck, forced


def check(llm: LLM, runs: list[Run], generated: list[list[Sequence[int]]]) -> None:
    for run, guesses in zip(runs, generated, strict=True):
        tokens, rounds, stuck, forced = by_reference(llm, run, guesses)
        assert run.answer == tokens
        assert run.continuation == forced
        assert run.stuck == stuck
        assert len(run.rounds) == len(rounds)
        for mine, theirs in zip(run.rounds, rounds, strict=True):
            assert (mine.decision.hit is not None) == theirs["hit"]
            assert [(w.text, pytest.approx(w.value, abs=1e-3)) for w in mine.decision.words] == theirs["words"]
            assert (mine.retrieved.windows if mine.retrieved else None) == theirs["windows"]


def sampled(rng: random.Random, name: str) -> Chosen:
    """Random settings, so that retractions, retries and limits all occur."""
    windows = Windows(heads=rng.randint(1, 3), k=rng.randint(1, 9), gap=rng.randint(0, 5), width=rng.randint(3, 20))
    kind: Any = rng.choice(["sentence", "plain"])
    rind = RIND(rng.choice([0.1, 2.0, 1e3]) if kind == "sentence" else rng.choice([0.1, 1.0, 1e3]), kind)
    strategy = Chosen(name, rng.sample(range(12), 3), windows, rind)
    strategy.prepare(windows, rind)
    return strategy


def test_whole_runs_of_a_tiny_llm_equal_the_reference(tiny_llm_folder: Path) -> None:
    llm, rng = LLM(str(tiny_llm_folder)), random.Random(1)
    task, asked = questions(llm, 2, 3, budget=14, force=6)
    runs: dict[MaskMode, list[Run]] = {"packed": [], "in_place": [], "concat": []}
    for number in range(10):
        strategy, draft_length, retries = sampled(rng, str(number)), rng.randint(3, 8), rng.randint(1, 2)
        for mask, listed in runs.items():
            own = RunSettings.of(task, Decoding(mask, draft_length, retries), tokenizer=llm.tokenizer)
            listed.append(Run(asked[number % 2], strategy, own, llm.tokenizer))
    for mask, listed in runs.items():
        generated: list[list[Sequence[int]]] = [[] for _ in listed]
        steps = [listened(run.steps(), one) for run, one in zip(listed, generated, strict=True)]
        run_together(ContextMaskedLLM(llm, chunk=50), [steps])
        if mask != "in_place":
            check(llm, listed, generated)
    assert [run.answer for run in runs["in_place"]] == [run.answer for run in runs["packed"]]
    assert [run.continuation for run in runs["in_place"]] == [run.continuation for run in runs["packed"]]
    retrieved = [sum(one.retrieved is not None for one in run.rounds) for run in runs["packed"]]
    assert 0 in retrieved  # some never fire, some do, some again and again
    assert max(retrieved) > 1
    assert any(run.stuck for run in runs["packed"])
    shown = [any(one.retrieved for one in run.rounds[-2:]) for run in runs["packed"]]
    assert set(shown) == {True, False}  # forced under windows, those of the draft before included, and under none
    # Keys of prompt and answer are reused: a token that ended the answer at its length, the opening, what follows it.
    assert all(0 < run.forced_tokens <= 1 + 4 + 6 for listed in runs.values() for run in listed)


def without_words(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace but for the values of words, whose last digits depend on the batch."""
    rounds = [{key: value for key, value in one.items() if key != "words"} for one in trace["rounds"]]
    return {**trace, "rounds": rounds}


@pytest.mark.parametrize("slots", [1, 2, "auto"])
def test_slots_change_no_answer_and_keys_are_freed(
    tiny_llm_folder: Path, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(str(tiny_llm_folder))
    task = MultiHopQA(SyntheticQA(4, seed=3), budget=14, force=6)
    strategies: list[Strategy] = [OracleHeadsStrategy(), FixedRandomHeadsStrategy(), WithoutRAG()]
    forgotten, held, traces = list[int](), list[set[int]](), []
    forget, generate = ContextMaskedLLM.forget, ContextMaskedLLM.generate

    def noted(masked: ContextMaskedLLM, question: int) -> None:
        forgotten.append(question)
        forget(masked, question)

    def watched(masked: ContextMaskedLLM, requests: Sequence[GenerationRequest]) -> list[GenerationOutput]:
        held.append({request.question for request in requests})
        return generate(masked, requests)

    monkeypatch.setattr(ContextMaskedLLM, "forget", noted)
    monkeypatch.setattr(ContextMaskedLLM, "generate", watched)
    for setting in (None, slots):
        runner = RagRunner(task, strategies, llm, Decoding(draft_length=6, slots=setting))
        runner.prepare(Windows(k=5, width=9), RIND(0.5))
        held.clear()
        traces.append(runner.run([0, 1, 2, 3], strategies, lambda _: None))
        assert sorted(forgotten) == [0, 1, 2, 3]
        forgotten.clear()
        most = max(map(len, held))
        assert most == 4 if setting in (None, "auto") else most == setting
    one, other = ([without_words(trace) for trace in made] for made in traces)
    assert one == other
    assert any(round_["windows"] for trace in one for round_ in trace["rounds"])


def test_slots_do_not_determine_trials() -> None:
    assert Decoding(slots=3).describe() == Decoding(slots="auto").describe()
    assert Decoding(batch_size=3).describe() != Decoding().describe()


@pytest.mark.slow
def test_a_whole_run_of_the_embedded_llm_equals_the_reference(llm: LLM) -> None:
    task, asked = questions(llm, 1, 5, budget=16, texts=QuestionTexts(examples=[]))  # short: the reference has no cache
    windows, rind = Windows(k=8, width=16), RIND(1.0)
    runs, generated = [], list[list[Sequence[int]]]()
    for mask in ("packed", "in_place"):
        strategy = Chosen(mask, [165, 157, 169, 168, 209], windows, rind)
        strategy.prepare(windows, rind)
        runs.append(Run(asked[0], strategy, RunSettings.of(task, Decoding(mask, 8, retries=2)), llm.tokenizer))  # type: ignore[arg-type]
        generated.append([])
        run_together(ContextMaskedLLM(llm), [[listened(runs[-1].steps(), generated[-1])]])
    check(llm, runs[:1], generated[:1])
    assert runs[0].answer == runs[1].answer
    assert any(one.retrieved for one in runs[0].rounds)


def test_the_oracle_takes_the_heads_of_highest_score(tiny_llm_folder: Path) -> None:
    """Eq. 2, position by position."""
    llm = LLM(str(tiny_llm_folder))
    _, (question,) = questions(llm, 1, 3, budget=18)
    strategy = OracleHeadsStrategy(sink=3, local=5)
    strategy.prepare(Windows(heads=3), RIND())
    seen = ContextMaskedLLM(llm).read_full_context(0, full_view(question.sample.ids))
    state = RetrievalState(question, seen, "", 0)
    scores = []
    for row in seen.attention.tolist():
        kept = range(3, len(row) - 5)
        scores.append(sum(row[i] for i in kept if i in question.evidence) / sum(row[i] for i in kept))
    assert reasoning_scores(state, ExcludedKeys(3, 5)).tolist() == pytest.approx(scores, rel=1e-4)
    best = sorted(range(len(scores)), key=lambda head: -scores[head])[:3]
    assert strategy.heads(state, 3) == best
    assert strategy.retrieve(state).heads == best


def test_fixed_random_heads_follow_the_seed_and_dynamic_ones_the_retrieval(tiny_llm_folder: Path) -> None:
    llm = LLM(str(tiny_llm_folder))
    _, asked = questions(llm, 2, 3, budget=18)
    seen = ContextMaskedLLM(llm).read_full_context(0, full_view(asked[0].sample.ids))
    states = [RetrievalState(question, seen, "", number) for question in asked for number in range(4)]
    new, kept = (
        [tuple(one.heads(state, 3)) for state in states]
        for one in (DynamicRandomHeadsStrategy(), FixedRandomHeadsStrategy())
    )
    assert len(set(new)) > 4
    assert len(set(kept)) == 1
    assert new == [tuple(DynamicRandomHeadsStrategy().heads(state, 3)) for state in states]
    assert kept[0] != tuple(FixedRandomHeadsStrategy(seed=1).heads(states[0], 3))
