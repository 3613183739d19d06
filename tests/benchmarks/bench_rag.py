"""`python -m tests.benchmarks.bench_rag [questions]`: what packing saves in masked RAG, on contexts of 1,000 tokens."""

import sys
import time

import torch

from extract.generation import ContextMaskedLLM, MaskMode
from extract.llm import LLM
from extract.tasks import MultiHopQA
from extract.tasks.sources.synthetic import SyntheticQA
from probe.rag import (
    RIND,
    Decoding,
    FixedRandomHeadsStrategy,
    OracleHeadsStrategy,
    Question,
    Run,
    RunSettings,
    Strategy,
    Windows,
    run_together,
)

MASKS: tuple[MaskMode, ...] = ("packed", "in_place")


def evaluate(llm: LLM, task: MultiHopQA, question: Question, strategies: list[Strategy], mask: MaskMode) -> list[Run]:
    """One question under some strategies."""
    settings = RunSettings.of(task, Decoding(mask, draft_length=32, retries=2))
    runs = [Run(question, strategy, settings, llm.tokenizer) for strategy in strategies]
    run_together(ContextMaskedLLM(llm), [[run.steps() for run in runs]])
    return runs


def main(count: int) -> None:
    """Seconds of CPU and tokens run forward, packed against in place, question by question."""
    llm, task = LLM(), MultiHopQA(SyntheticQA(count, seed=1, decoys=24), budget=64)
    task.prepare(llm)
    strategies: list[Strategy] = [OracleHeadsStrategy(), FixedRandomHeadsStrategy()]
    for strategy in strategies:
        strategy.prepare(Windows(k=8, width=24), RIND())
    seconds, total, masked = dict.fromkeys(MASKS, 0.0), dict.fromkeys(MASKS, 0), dict.fromkeys(MASKS, 0)
    same, lengths = 0, list[int]()
    for number in range(count):
        question = Question.from_task(task, task.without_context(), number)
        lengths.append(question.context[1] - question.context[0])
        texts = []
        for mask in MASKS:
            start = time.process_time()
            runs = evaluate(llm, task, question, strategies, mask)
            seconds[mask] += time.process_time() - start
            total[mask] += sum(run.forward_tokens for run in runs)
            masked[mask] += sum(run.masked_tokens for run in runs)
            texts.append([run.text for run in runs])
        same += texts[0] == texts[1]
    print(f"{count} questions, contexts of {min(lengths)} to {max(lengths)} tokens, {torch.get_num_threads()} threads")
    print(f"same answers, both strategies: {same} of {count}")
    for name, amounts in (
        ("tokens run under the mask", masked),
        ("tokens run in all", total),
        ("seconds of CPU", seconds),
    ):
        packed, in_place = (amounts[mask] for mask in MASKS)
        print(f"{name}: in place {in_place:,.0f}, packed {packed:,.0f}, ratio {in_place / packed:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
