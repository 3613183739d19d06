"""Rows a second by continuous batching: extraction against whole batches of 16 prompts, ablation against those of 8.

`python -m tests.benchmarks.bench_continuous` prints one line a kind of prompts, one of masked RAG, and writes
bench_continuous.json; `make bench` runs it, too. Times are the processor's, of one thread, so that other work on the
machine counts little.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from extract.generation import DynamicHeads, decode, decode_continuously, generate_ablated
from extract.generation import prefill as prefill_module
from extract.heads import HeadGrid
from extract.llm import LLM
from extract.tasks import MultiHopQA, Sample
from extract.tasks.niah import NIAH
from extract.tasks.sources import SyntheticQA
from probe.experiments.ablation import (
    AblateDynamic,
    AblateRandom,
    AblateStatic,
    Condition,
    NoAblation,
    Preparation,
)
from probe.heads import HeadCounts, Ranking
from probe.rag import (
    RIND,
    Decoding,
    FixedRandomHeadsStrategy,
    OracleHeadsStrategy,
    RagRunner,
    Strategy,
    Windows,
    WithoutRAG,
)

BATCH, SLOTS = 16, 32
ABLATED = 8
"""Slots of the ablation, and prompts of a whole batch of equal memory."""


def needles(llm: LLM, count: int) -> list[Sample]:
    """Of the demo."""
    task = NIAH(lengths={"low": 50, "high": 300}, runs=320)
    task.prepare(llm)
    return [task.sample(number) for number in task.order()[:count]]


def questions(llm: LLM, count: int) -> list[Sample]:
    """Of the demo, with answers of 8 to 64 tokens (random ones, for how long an answer is should not be chance)."""
    task, rng = MultiHopQA(SyntheticQA(count, seed=3), budget=64), random.Random(0)
    task.prepare(llm)
    answers = [[rng.randrange(100, 40_000) for _ in range(rng.randint(8, 64))] for _ in range(count)]
    return [replace(task.sample(n), budget=len(answer), forced=answer) for n, answer in enumerate(answers)]


def whole_batches(llm: LLM, samples: Sequence[Sample]) -> list[int]:
    """Rows of each prompt, as they were extracted before: only prefixes of 256 tokens and more were shared."""
    batches = [samples[first : first + BATCH] for first in range(0, len(samples), BATCH)]
    with patch.object(prefill_module, "SHORTEST_SHARED", 256):
        return [length for batch in batches for length in decode(llm, batch).lengths]


def idle_share(lengths: Sequence[int]) -> float:
    """Share of the rows of whole batches' steps that belong to prompts which have ended.

    >>> idle_share([10] * 8 + [20] * 8)
    0.25

    """
    batches = [lengths[first : first + BATCH] for first in range(0, len(lengths), BATCH)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def compare(llm: LLM, name: str, samples: Sequence[Sample], turns: int, limit: float) -> dict[str, Any]:
    """Extraction: median ratio of processor times, taken in turns."""
    sides: dict[str, Callable[[], Sequence[int]]] = {
        "whole": lambda: whole_batches(llm, samples),
        "continuous": lambda: decode_continuously(llm, samples, SLOTS).lengths,
    }
    ratio, rates, lengths = in_turns(sides, turns)
    detail = f"{rates[0]:.1f} against {rates[1]:.1f} rows/s, idle in whole batches {idle_share(lengths):.0%}"
    title = f"rows a second, {SLOTS} slots / whole batches of {BATCH}: {len(samples)} {name}"
    return {"name": title, "value": ratio, "bound": f">= {limit}", "holds": ratio >= limit, "detail": detail}


def in_turns(sides: dict[str, Callable[[], Sequence[int]]], turns: int) -> tuple[float, list[float], Sequence[int]]:
    """Median ratio of processor times, whole to continuous; rows a second, continuous first; rows of each answer."""
    times, lengths = {side: list[float]() for side in sides}, list[int]()
    for _ in range(turns):
        for side, run in sides.items():
            start = time.process_time()
            lengths = list(run())
            times[side].append(time.process_time() - start)
    ratio = statistics.median(a / b for a, b in zip(times["whole"], times["continuous"], strict=True))
    return ratio, [sum(lengths) / statistics.median(times[side]) for side in ("continuous", "whole")], lengths


def compare_ablation(
    llm: LLM, name: str, samples: Sequence[Sample], heads: DynamicHeads, turns: int, limit: float
) -> dict[str, Any]:
    """Ablation under four conditions: median ratio of processor times, taken in turns."""
    conditions: list[Condition] = [NoAblation(), AblateDynamic(), AblateStatic(n=4), AblateRandom(n=4)]
    grid = HeadGrid(llm.identity.layers, llm.identity.heads)
    ranking = Ranking(np.random.default_rng(0).random((grid.layers, grid.heads)), True, "random")
    for condition in conditions:
        condition.prepare(Preparation(ranking, HeadCounts((0.0, 1.0)), average=4.0))

    def lengths(part: Sequence[Sample], slots: int | None) -> list[int]:
        found = generate_ablated(llm, part, conditions, heads, slots=slots).lengths
        return [int(length) for length in found.flatten()]

    batches = [samples[first : first + ABLATED] for first in range(0, len(samples), ABLATED)]
    sides: dict[str, Callable[[], Sequence[int]]] = {
        "whole": lambda: [length for batch in batches for length in lengths(batch, None)],
        "continuous": lambda: lengths(samples, ABLATED),
    }
    ratio, rates, _ = in_turns(sides, turns)
    title = f"rows a second of ablation, {ABLATED} slots / whole batches of {ABLATED}: {len(samples)} {name}"
    detail = f"{rates[0]:.1f} against {rates[1]:.1f} rows/s"
    return {"name": title, "value": ratio, "bound": f">= {limit}", "holds": ratio >= limit, "detail": detail}


def masked_rag(llm: LLM, count: int, turns: int, batch: int = 4) -> dict[str, Any]:
    """Runs of masked RAG a second: all questions in `batch` slots, against batches of `batch` questions."""
    strategies: list[Strategy] = [OracleHeadsStrategy(), FixedRandomHeadsStrategy(), WithoutRAG()]
    task, found = MultiHopQA(SyntheticQA(count, seed=3), budget=48), dict[str, list[str]]()

    def side(decoding: Decoding) -> Callable[[], list[str]]:
        runner = RagRunner(task, strategies, llm, decoding)
        runner.prepare(Windows(k=8, width=24), RIND())
        batches = runner.batches().values()
        return lambda: [one["text"] for numbers in batches for one in runner.run(numbers, strategies, lambda _: None)]

    sides = {
        "whole": side(Decoding(draft_length=32, batch_size=batch)),
        "continuous": side(Decoding(draft_length=32, batch_size=count, slots=batch)),
    }
    times = {name: list[float]() for name in sides}
    for _ in range(turns):
        for name, run in sides.items():
            start = time.process_time()
            found[name] = run()
            times[name].append(time.process_time() - start)
    ratio = statistics.median(a / b for a, b in zip(times["whole"], times["continuous"], strict=True))
    same = sum(a == b for a, b in zip(*found.values(), strict=True))
    seconds = " against ".join(f"{statistics.median(times[name]):.1f}" for name in ("continuous", "whole"))
    detail = f"{seconds} s; {same} of {len(found['whole'])} answers the same"
    title = f"masked RAG, {count} questions in {batch} slots / whole batches of {batch}"
    return {"name": title, "value": ratio, "bound": "", "holds": None, "detail": detail}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, and on as many as before at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def ablation_batching(llm: LLM, count: int = 24, turns: int = 3) -> Iterator[dict[str, Any]]:
    """The demo's needles and questions, and questions with budgets of 1 to 48 tokens, on one thread."""
    rng = random.Random(0)
    needles = NIAH(lengths={"low": 50, "high": 300}, runs=count, haystack_start="random")
    asked = MultiHopQA(SyntheticQA(count, seed=1, decoys=1), budget=48)
    reasoning = DynamicHeads("reasoning")
    for task in (needles, asked):
        task.prepare(llm)
    found = [needles.sample(number) for number in needles.order()[:count]]
    questions = [asked.sample(number) for number in asked.order()[:count]]
    varied = [replace(sample, budget=rng.randint(1, 48)) for sample in questions]
    with one_thread():
        yield compare_ablation(llm, "needles of the demo", found, DynamicHeads(), turns, 0.9)
        yield compare_ablation(llm, "questions of the demo", questions, reasoning, turns, 0.9)
        yield compare_ablation(llm, "questions with budgets of 1 to 48 tokens", varied, reasoning, turns, 1)


def continuous_batching(llm: LLM, count: int = 64, turns: int = 3) -> Iterator[dict[str, Any]]:
    """Both kinds of prompts, and masked RAG, on one thread."""
    with one_thread():
        yield compare(llm, "needles of the demo", needles(llm, count), turns, 1.3)
        yield compare(llm, "questions with answers of 8 to 64 tokens", questions(llm, count), turns, 1.6)
        yield masked_rag(llm, count // 4, turns)


def main(count: str = "64", turns: str = "3") -> None:
    """Print all, and write them."""
    llm, results = LLM(), list[dict[str, Any]]()
    ablated = ablation_batching(llm, min(int(count), 24), int(turns))
    for result in chain(ablated, continuous_batching(llm, int(count), int(turns))):
        results.append(result)
        print(f"{result['name']}: {result['value']:.2f} {result['bound']} ({result['detail']})", flush=True)
        Path("bench_continuous.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
