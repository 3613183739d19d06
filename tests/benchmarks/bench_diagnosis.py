"""Cost of the passive record of a diagnosis against plain decoding, in turn on the same prompts.

On a CPU it is time of the processor, which other processes on the machine hardly change; on a GPU wall-clock time.

python -m tests.benchmarks.bench_diagnosis --length 1000 --prompts 8 --repeats 5 --device cuda
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from extract import LLM, NIAH
from extract.contribution import readout_of
from extract.generation import decode_step, pad, prefill_prompts
from extract.tasks import Sample
from extract.utils import frozen_inference, say
from probe.diagnosis import DiagnosedAnswer, Recording, TrainingPrompts, record_batch


@frozen_inference()
def plain(llm: LLM, samples: Sequence[Sample]) -> None:
    """Greedy decoding of a batch, nothing recorded."""
    batch = pad(samples, llm.tokenizer.pad_token_id or 0, device=llm.model.device)
    cache = prefill_prompts(llm.model, batch, batch.tokens.shape[1], llm.prefill_chunk)
    ends = torch.tensor(llm.end_tokens, device=batch.tokens.device)
    ended = torch.zeros(len(samples), dtype=torch.bool, device=batch.tokens.device)
    for keys in range(batch.width, batch.tokens.shape[1]):
        batch.tokens[:, keys] = decode_step(llm.model, batch, cache, keys).argmax(dim=-1)
        ended |= torch.isin(batch.tokens[:, keys], ends)
        if ended.all():
            break


def seconds(run: Callable[[], object], gpu: bool) -> float:
    """Time of a run: wall-clock time with work on the GPU, else of the processor."""
    if not gpu:
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print the median ratio, and the range of the ratios of neighbouring runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="embedded:smollm2")
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--depth", type=float, default=50)
    parser.add_argument("--prompts", type=int, default=4, help="of one batch")
    parser.add_argument("--early", type=int, default=4)
    parser.add_argument("--metric", default="accuracy", help="rouge_l: nearly every answer counts as failed")
    parser.add_argument("--training", type=float, default=0.0, help="share of prompts that give thresholds, once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    llm = LLM(args.name)
    llm.to(torch.device(args.device))
    task = NIAH(lengths=[args.length], depths=[args.depth], runs=args.prompts, seed=21)
    task.prepare(llm)
    samples = [task.sample(index) for index in task.order()]
    how = Recording(args.metric, args.early, TrainingPrompts(args.training), None)
    readout_of(llm.model)  # found once for a model
    ratios, found = list[float](), list[tuple[float, float]]()
    answers, gpu = list[DiagnosedAnswer](), args.device != "cpu"
    for repeat in range(args.repeats + 1):
        bare = seconds(lambda: plain(llm, samples), gpu)
        recorded = seconds(lambda: answers.extend(record_batch(llm, task, samples, how)), gpu)
        if repeat:  # the first pair warms up
            ratios.append(recorded / bare)
            found.append((bare, recorded))
            say(f"pair {repeat}: {ratios[-1]:.3f}")
    times = [statistics.median(column) for column in zip(*found, strict=True)]
    failed = sum(answer.failed for answer in answers[: len(samples)])
    prompts = f"{len(samples)} prompts of {args.length} tokens, {failed} answers failed"
    say(f"plain {times[0]:.2f} s, recorded {times[1]:.2f} s; {prompts}")
    say(f"ratio {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}] over {len(ratios)} pairs")


if __name__ == "__main__":
    main()
