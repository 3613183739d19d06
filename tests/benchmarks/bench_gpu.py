"""Speed on a GPU, on a model with random weights: `python -m tests.benchmarks.bench_gpu --output FILE.json`.

By default the shape of Llama-3.1-8B in bfloat16; nothing is downloaded, for the model is built on the device. Parts:

- steps: a recorded decode step (Eq. 1 and Eq. 2), and one with logit contributions of the evidence, against a plain
  one. The kinds take turns on one cache, `STEPS` steps each; medians over turns, timed by CUDA events.
- synchronisations: how often a step of each kind waits for the device (PyTorch's sync debug mode; on a GPU alone).
- throughput: tokens/s of the whole decoding loop, beside `generate` of transformers from the same number of cached
  keys, and beside the limit that memory bandwidth sets: weights and KV cache are read once a step.
- prefill: time and peak memory of one long prompt: in chunks and whole, as this project runs it, and plain SDPA.

`--shape tiny --device cpu` tries it in a few seconds. The file is written after every part.
"""

import argparse
import contextlib
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from extract.attention import ATTENTION_IMPLEMENTATION, instrumented, preallocated_cache, register_attention
from extract.contribution import LogitContributions, Sources
from extract.generation import decode_step, pad, prefill_prompts
from extract.generation.batching import Batch
from extract.generation.greedy import _generate, scored_step
from extract.llm import LLM, PREFILL_CHUNK
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from tests.helpers.model_shapes import SHAPES

STEPS = 8
"""Steps of one turn: as many as contributions are computed together."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured on a shape.

    Attributes:
        config: Changes of the shape's config.
        keys: Numbers of cached keys.
        batches: Batch sizes.
        prefill: Tokens of the long prompt.
        turns: Turns of each kind of step, the first of which is not counted.
        decoded: Steps of the decoding loop.

    """

    config: dict[str, Any]
    keys: tuple[int, ...]
    batches: tuple[int, ...]
    prefill: int
    turns: int
    decoded: int


SIZES = {
    "llama3.1-8b": Sizes({}, (512, 8_000, 50_000), (1, 16), 50_000, 7, 64),
    "tiny": Sizes(SHAPES["llama3.1-8b"].smaller, (64, 96), (1, 2), 300, 3, 4),
}


class RandomLLM(LLM):
    """A Llama with random weights, built on its device; no token ends an answer."""

    def __init__(self, config: dict[str, Any], device: torch.device) -> None:
        from transformers import AutoModelForCausalLM

        super().__init__("random")
        register_attention()
        full = SHAPES["llama3.1-8b"].config(**config)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        with device:
            model = AutoModelForCausalLM.from_config(full, dtype=dtype, attn_implementation=ATTENTION_IMPLEMENTATION)
        self._model, self._config, self._ends = model.to(device).eval().requires_grad_(False), full, (full.vocab_size,)

    def batch(self, keys: int, rows: int, budget: int) -> Batch:
        """Random prompts of `keys` tokens with evidence; every other one a little shorter, so that there is padding."""
        generator = torch.Generator().manual_seed(0)
        lengths = [keys - (5 if row % 2 else 0) for row in range(rows)]
        ids = [torch.randint(3, 500, (length,), generator=generator).tolist() for length in lengths]
        samples = [Sample(row, str(row), prompt, [(20, 50)], budget, "", "") for row, prompt in enumerate(ids)]
        return pad(samples, 0, self.model.device)

    def key_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        config = self.config
        return int(2 * config.num_hidden_layers * config.num_key_value_heads * self._size() * self.model.dtype.itemsize)

    def read_bytes(self) -> int:
        """Bytes of the weights that a decode step reads: of the embeddings, a few rows alone."""
        embeddings = self.model.get_input_embeddings().weight
        return sum(weight.nbytes for weight in self.model.parameters() if weight is not embeddings)

    def keys(self, rows: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Random keys and values of each layer: as slow to read as those of a prompt, and without its prefill."""
        shape = (rows, self.config.num_key_value_heads, count, self._size())
        for _ in range(self.config.num_hidden_layers):
            yield tuple(torch.randn(shape, device=self.model.device, dtype=self.model.dtype) for _ in range(2))  # type: ignore[misc]

    def cache(self, rows: int, count: int, capacity: int) -> Any:
        """A preallocated cache that holds `count` random keys."""
        cache = preallocated_cache(self.model, capacity)
        for layer, states in zip(cache.layers, self.keys(rows, count), strict=True):
            layer.update(*states)  # type: ignore[union-attr]
        return cache

    def _size(self) -> int:
        return int(self.config.hidden_size // self.config.num_attention_heads)


class Clock:
    """Seconds on a device: CUDA events, or the wall clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"

    def time(self, action: Callable[[], object]) -> float:
        """Seconds that an action takes, until its last kernel has ended."""
        if not self.cuda:
            start = time.perf_counter()
            action()
            return time.perf_counter() - start
        torch.cuda.synchronize(self.device)
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        action()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000

    @contextlib.contextmanager
    def peak(self) -> Iterator[Callable[[], float | None]]:
        """Peak memory of the device above the start, in GiB; None on a CPU."""
        free(self.device)
        base = torch.cuda.memory_allocated(self.device) if self.cuda else 0
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        yield lambda: (torch.cuda.max_memory_allocated(self.device) - base) / 2**30 if self.cuda else None


def free(device: torch.device) -> None:
    """Give unused memory back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronisations(action: Callable[[], object]) -> int:
    """How often an action makes the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            action()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


class Steps:
    """Decode steps of one batch in three kinds, each after the last one on the same cache."""

    KINDS = ("plain", "recorded", "contribution")

    def __init__(self, llm: RandomLLM, keys: int, rows: int, turns: int) -> None:
        budget = len(self.KINDS) * STEPS * (turns + 1)
        self.llm, self.batch, self.position = llm, llm.batch(keys, rows, budget), keys
        self.cache = llm.cache(rows, keys - 1, keys + budget)
        self.contributions = LogitContributions(llm.model, Sources.of(self.batch.evidence[..., None]))

    def turn(self, kind: str) -> None:
        """`STEPS` steps of one kind."""
        for _ in range(STEPS):
            keys = self.position
            if kind == "plain":
                token = decode_step(self.llm.model, self.batch, self.cache, keys).argmax(dim=-1)
            else:
                found = self.contributions if kind == "contribution" else None
                token = scored_step(self.llm, self.batch, self.cache, keys, ExcludedKeys(), found)[0]
            self.batch.tokens[:, keys] = token
            self.position += 1


def steps(llm: RandomLLM, clock: Clock, keys: int, rows: int, sizes: Sizes) -> Result:
    """Milliseconds of a step of each kind, and how often it waits for the device."""
    run, times, waits = Steps(llm, keys, rows, sizes.turns), {kind: list[float]() for kind in Steps.KINDS}, {}
    with instrumented(llm.model):
        for turn in range(sizes.turns):
            for kind in Steps.KINDS:
                seconds = clock.time(lambda kind=kind: run.turn(kind))  # type: ignore[misc]
                if turn:  # the first one warms up
                    times[kind].append(seconds / STEPS)
        if clock.cuda:
            waits = {kind: synchronisations(lambda kind=kind: run.turn(kind)) / STEPS for kind in Steps.KINDS}  # type: ignore[misc]
    ratios = {
        f"{kind}_over_plain": statistics.median(a / b for a, b in zip(times[kind], times["plain"], strict=True))
        for kind in Steps.KINDS[1:]
    }
    medians = {f"{kind}_ms": statistics.median(values) * 1000 for kind, values in times.items()}
    return {**medians, **ratios, "synchronisations_a_step": waits or None}


def throughput(llm: RandomLLM, clock: Clock, keys: int, rows: int, sizes: Sizes, bandwidth: float) -> Result:
    """Tokens/s of the recorded decoding loop, of `generate`, and at the limit of memory bandwidth."""
    count = sizes.decoded
    batch = llm.batch(keys, rows, count)
    cache = llm.cache(rows, keys - 1, keys + count)
    with instrumented(llm.model):
        ours = clock.time(lambda: _generate(llm, batch, cache, ExcludedKeys(), None, None))
    del cache
    free(clock.device)
    theirs = generate(llm, clock, keys, rows, count)
    read = llm.read_bytes() + rows * (keys + count // 2) * llm.key_bytes()
    found = {"recorded": rows * count / ours, "generate": rows * count / theirs, "limit": rows * bandwidth / read}
    return {
        **{f"{name}_tokens_per_s": value for name, value in found.items()},
        "recorded_over_generate": found["recorded"] / found["generate"],
        "recorded_over_limit": found["recorded"] / found["limit"],
    }


def generate(llm: RandomLLM, clock: Clock, keys: int, rows: int, count: int) -> float:
    """Seconds of `generate` for `count` tokens after `keys - 1` cached ones, in its own cache and plain SDPA."""
    from transformers import DynamicCache

    batch, model = llm.batch(keys, rows, count), cast("Any", llm.model)
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "min_new_tokens": count}

    def run(states: Any, new: int) -> None:
        cache = DynamicCache(config=llm.config)
        for layer, pair in enumerate(states):
            cache.update(*pair, layer)
        ids, mask = batch.tokens[:, :keys], batch.real[:, :keys].long()
        model.generate(ids, attention_mask=mask, past_key_values=cache, **{**options, "max_new_tokens": new})

    llm.model.set_attn_implementation("sdpa")
    try:
        states = list(llm.keys(rows, keys - 1))
        run(states, count)  # warms up
        return clock.time(lambda: run(states, count))
    finally:
        llm.model.set_attn_implementation(ATTENTION_IMPLEMENTATION)


def prefills(llm: RandomLLM, clock: Clock, tokens: int) -> Iterator[Result]:
    """One long prompt: as this project runs it, in chunks and whole, and by plain SDPA with a cache of its own."""
    batch, short = llm.batch(tokens, 1, 1), llm.batch(64, 1, 1)

    def plain() -> None:
        llm.model.set_attn_implementation("sdpa")
        try:
            llm.model(input_ids=batch.tokens[:, : tokens - 1], use_cache=True, logits_to_keep=1)
        finally:
            llm.model.set_attn_implementation(ATTENTION_IMPLEMENTATION)

    kinds = {
        f"chunks of {PREFILL_CHUNK:,}": lambda: prefill_prompts(llm.model, batch, tokens + 1, PREFILL_CHUNK),
        "whole": lambda: prefill_prompts(llm.model, batch, tokens + 1, None),
        "transformers' SDPA": plain,
    }
    prefill_prompts(llm.model, short, 65, None)  # so that nothing is set up for the first time under the clock
    for kind, run in kinds.items():
        with clock.peak() as peak:
            seconds = clock.time(run)
            yield {"kind": kind, "tokens": tokens, "seconds": seconds, "peak_gib": peak()}


def copy_bandwidth(clock: Clock) -> float:
    """Bytes/s that a copy within the device reads and writes."""
    count = 2**31 if clock.cuda else 2**26
    source = torch.ones(count, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * count / statistics.median(clock.time(lambda: target.copy_(source)) for _ in range(7))


def fits(llm: RandomLLM, clock: Clock, keys: int, rows: int) -> str | None:
    """Why a cache does not fit beside the model; None: it does."""
    needed = rows * keys * llm.key_bytes() / 2**30 + 4 if clock.cuda else 0.0  # 4 GiB for all that a step needs besides
    held = torch.cuda.mem_get_info(clock.device)[0] / 2**30 if clock.cuda else 1.0
    return None if needed < held else f"needs about {needed:.0f} GiB, and {held:.0f} GiB are free"


def attempt(measure: Callable[[], Result]) -> Result:
    """A result, or that memory was not enough for it."""
    try:
        return measure()
    except torch.OutOfMemoryError as error:
        return {"skipped": str(error).partition(".")[0]}


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> Result:
    """Measure, print and write everything."""
    parser = argparse.ArgumentParser(description="Speed on a GPU, on a model with random weights.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--shape", choices=SIZES, default="llama3.1-8b")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    options = parser.parse_args(arguments)
    sizes, clock, start = SIZES[options.shape], Clock(options.device), time.perf_counter()
    llm = RandomLLM(sizes.config, options.device)
    bandwidth = copy_bandwidth(clock)
    report = {**machine(llm, options), "sizes": asdict(sizes), "copy_bytes_per_s": bandwidth}
    report |= {"steps": [], "throughput": [], "prefill": []}
    print(json.dumps(report), flush=True)

    def add(part: str, result: Result) -> None:
        report[part].append(result)
        report["seconds"] = time.perf_counter() - start
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"{report['seconds']:.0f} s, {part}: {json.dumps(result)}", flush=True)
        free(clock.device)

    for result in prefills(llm, clock, sizes.prefill):
        add("prefill", result)
    for keys in sizes.keys:
        for rows in sizes.batches:
            at, reason = {"batch": rows, "keys": keys}, fits(llm, clock, keys, rows)
            if reason is not None:
                add("steps", {**at, "skipped": reason})
                continue
            add("steps", {**at, **attempt(lambda keys=keys, rows=rows: steps(llm, clock, keys, rows, sizes))})  # type: ignore[misc]
            add(
                "throughput",
                {**at, **attempt(lambda keys=keys, rows=rows: throughput(llm, clock, keys, rows, sizes, bandwidth))},  # type: ignore[misc]
            )
    return report


def machine(llm: RandomLLM, options: argparse.Namespace) -> Result:
    """Card, software and model."""
    import transformers

    device = options.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "shape": options.shape,
        "dtype": str(llm.model.dtype).removeprefix("torch."),
        "parameters": sum(weight.numel() for weight in llm.model.parameters()),
    }


if __name__ == "__main__":
    main()
