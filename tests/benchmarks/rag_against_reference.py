"""`python -m tests.benchmarks.rag_against_reference CKPT [questions]`: masked RAG against the slow reference.

A question takes about a minute, since the reference has no cache; the tests run one. Prompts are short: no worked
example, no other people in the context.
"""

import sys

import torch
from torch import Tensor

import probe
from extract.generation import ContextMaskedLLM, MaskMode
from extract.heads import top_k
from extract.llm import LLM
from extract.tasks import MultiHopQA, QuestionTexts
from extract.tasks.sources.synthetic import SyntheticQA
from probe.rag import RIND, Decoding, DynamicHeadsStrategy, Question, Run, RunSettings, Windows, run_together
from tests.helpers import reference_rag

MASKS: tuple[MaskMode, ...] = ("packed", "in_place", "concat")
WINDOWS = Windows(k=4, gap=4, width=12)


def main(checkpoint: str, count: int) -> None:
    """How many runs equal the reference in tokens and windows, by mask."""
    llm, task = LLM(), MultiHopQA(SyntheticQA(count, seed=7, decoys=0), budget=24, texts=QuestionTexts(examples=[]))
    task.prepare(llm)
    without_context, trained = task.without_context(), probe.load(checkpoint, llm=llm.identity)
    assert isinstance(trained, probe.ProbeRegressor)
    strategy = DynamicHeadsStrategy()
    strategy.prepare(WINDOWS, RIND(1.0))
    strategy.set_probe(trained)

    def choose(hidden: Tensor, rows: Tensor) -> list[int]:
        del rows
        with torch.inference_mode():
            return top_k(trained.predict_scores(hidden[None].float())[0], WINDOWS.heads).tolist()

    same, retrievals = dict.fromkeys(MASKS, 0), 0
    for number in range(count):
        question = Question.from_task(task, without_context, number)
        for mask in MASKS:
            done = RunSettings.of(task, Decoding(mask, draft_length=12, retries=2))
            run = Run(question, strategy, done, llm.tokenizer)
            run_together(ContextMaskedLLM(llm), [run.steps()])
            if mask != "in_place":  # whose reference is that of packed
                wanted = reference_rag.Settings(
                    k=WINDOWS.k, gap=WINDOWS.gap, width=WINDOWS.width, draft_length=12, length=task.budget
                )
                wanted.concat = mask == "concat"
                tokens, rounds, stuck = reference_rag.reference_run(
                    llm, question.sample.ids, question.context, choose, wanted
                )
            windows = [one.retrieved.windows if one.retrieved else None for one in run.rounds]
            same[mask] += (run.answer, windows, run.stuck) == (tokens, [one["windows"] for one in rounds], stuck)
            retrievals += sum(one is not None for one in windows)
        print(f"{number + 1} questions, {retrievals} retrievals; equal: {same}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20)
