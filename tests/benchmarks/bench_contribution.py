"""Cost of logit contributions: `python -m tests.benchmarks.bench_contribution [lengths] [batch sizes]`.

CPU time, for other processes may share the machine. Five kinds of step take turns on the same prompts: plain (PyTorch's
attention), scored (Eq. 1 and Eq. 2), scored with contributions of the evidence, and of all sources, and the step of an
attribution: attention and contributions of all sources, copying heads, entropy. Ratios are of medians in one process.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable

import torch

from extract.attention import RecordingPlan, instrumented, recording
from extract.contribution import LogitContributions, Sources, prompt_sources
from extract.generation.batching import Batch, pad, reasoning_columns
from extract.generation.prefill import decode_step, prefill_prompts
from extract.llm import LLM
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from probe.attribution.record import _Decoding

STEPS = 8
"""Steps of one turn: as many as contributions are computed together."""
TURNS = 5
KINDS = 5
SOURCES = 32


def batch_of(llm: LLM, length: int, rows: int) -> Batch:
    """Random prompts, each its own."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40000, (rows, length), generator=generator).tolist()
    budget = STEPS * (TURNS + 1) * KINDS
    samples = [Sample(row, str(row), prompt, [(9, 30)], budget, "", "") for row, prompt in enumerate(ids)]
    return pad(samples, 0, device=llm.model.device)


@torch.inference_mode()
def measure(llm: LLM, length: int, rows: int) -> dict[str, float]:
    """Median seconds of a step of each kind."""
    batch = batch_of(llm, length, rows)
    cache = prefill_prompts(llm.model, batch, batch.tokens.shape[1])
    borders = [i * length // SOURCES for i in range(SOURCES + 1)]
    spans = [[[pair] for pair in itertools.pairwise(borders)]] * rows
    sources = Sources.of(prompt_sources(batch.real, batch.width, spans))
    evidence = Sources.of(batch.evidence[..., None])
    position = batch.width

    def plain(keys: int) -> None:
        decode_step(llm.model, batch, cache, keys).argmax(dim=-1)

    def scored(keys: int) -> None:
        with recording(llm.model, RecordingPlan(columns=reasoning_columns(batch, keys, ExcludedKeys()))) as recorder:
            decode_step(llm.model, batch, cache, keys).argmax(dim=-1)
        _ = recorder.argmax, recorder.mass

    def contributed(chosen: Sources) -> Callable[[int], None]:
        found = LogitContributions(llm.model, chosen)

        def step(keys: int) -> None:
            plan = RecordingPlan(columns=reasoning_columns(batch, keys, ExcludedKeys()))
            with found.recording(plan) as recorder:
                token = decode_step(llm.model, batch, cache, keys).argmax(dim=-1)
            _ = recorder.argmax, recorder.mass
            found.add(recorder, token)

        return step

    kinds = {
        "plain": plain,
        "scored": scored,
        "evidence": contributed(evidence),
        "all": contributed(sources),
        "attribution": _Decoding(llm, batch, cache, spans)._step,
    }
    times = {kind: list[float]() for kind in kinds}
    with instrumented(llm.model):
        for turn in range(TURNS + 1):
            for kind, step in kinds.items():
                start = time.process_time()
                for _ in range(STEPS):
                    step(position)
                    position += 1
                if turn:  # the first one warms up
                    times[kind].append((time.process_time() - start) / STEPS)
    return {kind: statistics.median(values) for kind, values in times.items()}


def main(lengths: str = "512,4000", batches: str = "1,16") -> None:
    """Print one line for each setting."""
    llm = LLM()
    for length, rows in itertools.product(lengths.split(","), batches.split(",")):
        found = measure(llm, int(length), int(rows))
        ratios = ", ".join(f"{kind} {value / found['plain']:.3f}" for kind, value in found.items())
        over = found["all"] / found["scored"]
        print(f"{length} tokens × {rows}: plain {found['plain'] * 1000:.0f} ms; over plain: {ratios}")
        print(f"  all / scored {over:.3f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
