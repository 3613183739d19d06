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
FORCE = 8
WINDOWS = Windows(k=4, gap=4, width=12)


def main(checkpoint: str, count: int) -> None:
    """How many runs equal the reference in tokens, windows and forced tokens, by mask."""
    llm, texts = LLM(), QuestionTexts(examples=[])
    task = MultiHopQA(SyntheticQA(count, seed=7, decoys=0), budget=24, texts=texts, force=FORCE)
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

    same, retrievals, forced = dict.fromkeys(MASKS, 0), 0, 0
    for number in range(count):
        question = Question.from_task(task, without_context, number)
        for mask in MASKS:
            done = RunSettings.of(task, Decoding(mask, draft_length=12, retries=2), tokenizer=llm.tokenizer)
            run = Run(question, strategy, done, llm.tokenizer)
            run_together(ContextMaskedLLM(llm), [[run.steps()]])
            if mask != "in_place":  # whose reference is that of packed
                wanted = reference_rag.Settings(
                    k=WINDOWS.k, gap=WINDOWS.gap, width=WINDOWS.width, draft_length=12, length=task.budget
                )
                wanted.concat = mask == "concat"
                tokens, rounds, stuck = reference_rag.reference_run(
                    llm, question.sample.ids, question.context, choose, wanted
                )
                continuation = reference_rag.reference_forced(
                    llm, question.sample.ids, tokens, rounds[-1]["hidden"], FORCE, wanted
                )
            windows = [one.retrieved.windows if one.retrieved else None for one in run.rounds]
            found = run.answer, windows, run.stuck, run.continuation
            same[mask] += found == (tokens, [one["windows"] for one in rounds], stuck, continuation)
            forced += continuation is not None
            retrievals += sum(one is not None for one in windows)
        print(f"{number + 1} questions, {retrievals} retrievals, {forced} forced answers; equal: {same}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20)
