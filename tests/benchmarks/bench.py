"""`make bench`: what speed and memory the project promises, each pair measured in one process, as JSON and a table."""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from datamodules import ScoreRows
from extract.attention import RecordingPlan, instrumented, preallocated_cache, recording
from extract.generation import DynamicHeads, decode, generate_ablated
from extract.generation.batching import pad, reasoning_columns
from extract.generation.greedy import scored_step
from extract.generation.prefill import decode_step, prefill_prompts
from extract.llm import LLM, LLMIdentity
from extract.scores import ExcludedKeys
from extract.tasks import Sample
from extract.tasks.niah import NIAH
from probe.experiments.ablation import AblateDynamic, AblateRandom, AblateStatic, Condition, Preparation
from probe.heads import HeadCounts, Ranking
from probe.models.classifier import ProbeClassifier
from probe.models.losses import asymmetric_loss
from probe.models.mlp import MLP
from tests.benchmarks.bench_continuous import ablation_batching, continuous_batching
from tests.helpers.stores import make_store

Result = dict[str, Any]


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def pair(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, taken in turns, and the median of their ratios second / first."""
    first(), second()
    times = []
    for turn in range(repeats):
        if turn % 2:
            later, sooner = timed(second), timed(first)
            times.append((sooner, later))
        else:
            times.append((timed(first), timed(second)))
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, statistics.median(y / x for x, y in times)


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Peak resident memory above the start, in GiB, sampled every 5 ms."""
    process, base, peak, stop = psutil.Process(), psutil.Process().memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss - base)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak[0] / 2**30
    finally:
        stop.set()
        thread.join()


class Stepper:
    """One decode step of a real batch, over and over, on the same cache of `keys` keys."""

    def __init__(self, llm: LLM, batch: int, keys: int) -> None:
        self.llm, self.model = llm, llm.model
        generator = torch.Generator().manual_seed(0)
        lengths = [keys - (5 if row % 2 else 0) for row in range(batch)]  # some padding, as in real batches
        ids = [torch.randint(10, 40_000, (n,), generator=generator).tolist() for n in lengths]
        samples = [Sample(row, str(row), tokens, [(100, 140)], 1, "", "") for row, tokens in enumerate(ids)]
        self.batch = pad(samples, 0, torch.device("cpu"))
        self.cache = prefill_prompts(self.model, self.batch, self.batch.tokens.shape[1])
        self.keys = keys

    def forward(self) -> torch.Tensor:
        """The model alone, and the greedy token."""
        token = decode_step(self.model, self.batch, self.cache, self.keys).argmax(-1)
        self._crop()
        return token

    def recorded(self) -> None:
        """The step as `decode` runs it: columns, recorded forward, both scores of every head."""
        scored_step(self.llm, self.batch, self.cache, self.keys, ExcludedKeys())
        self._crop()

    def _crop(self) -> None:
        for layer in self.cache.layers:
            layer.crop(-1)

    def compare(self, repeats: int) -> tuple[float, float, float]:
        """A plain and a recorded step (see `pair`)."""
        return pair(self.forward, self.recorded, repeats)


@torch.inference_mode()
def decoding(llm: LLM) -> list[Result]:
    """Cost of recording, and throughput by batch size, at 512 keys."""
    results, rates = [], {}
    with instrumented(llm.model):
        for batch in (1, 16):
            stepper = Stepper(llm, batch, 512)
            plain, recorded, ratio = stepper.compare(repeats=100)
            rates[batch] = batch / recorded
            detail = f"{plain * 1e3:.1f} ms plain, {recorded * 1e3:.1f} ms recorded"
            results.append(bound(f"recorded / unrecorded decode step, batch {batch}", ratio, "<=", 1.05, detail))
    detail = f"{rates[16]:.0f} against {rates[1]:.0f} tokens/s"
    results.append(bound("decode throughput, batch 16 / batch 1", rates[16] / rates[1], ">=", 4.0, detail))
    return results


def whole_prompts(llm: LLM) -> list[Result]:
    """Rows per second of extraction as it runs, prefill and finished samples' idle steps included."""
    task = NIAH(lengths={"low": 50, "high": 300}, runs=320)
    task.prepare(llm)
    samples = [task.sample(index) for index in task.order()[160:176]]
    rows: dict[int, float] = {}
    for batch, used in ((16, samples), (1, samples[:4])):
        count = 0
        start = time.perf_counter()
        for first in range(0, len(used), batch):
            count += sum(decode(llm, used[first : first + batch]).lengths)
        rows[batch] = count / (time.perf_counter() - start)
    detail = f"{rows[16]:.0f} against {rows[1]:.0f} rows/s, prefill included"
    return [bound("extraction of the demo's prompts, batch 16 / batch 1", rows[16] / rows[1], None, None, detail)]


@torch.inference_mode()
def prefilling(llm: LLM) -> list[Result]:
    """2,048 tokens: instrumented prefill against eager attention with its maps."""
    eager = LLM(llm.name, attention="eager").model
    ids = torch.randint(10, 40_000, (1, 2048), generator=torch.Generator().manual_seed(0))

    def maps() -> None:
        eager(input_ids=ids, output_attentions=True, logits_to_keep=1, use_cache=True)

    def ours() -> None:
        with instrumented(llm.model):
            llm.model(input_ids=ids, past_key_values=preallocated_cache(llm.model, 2048), logits_to_keep=1)

    mine, theirs, ratio = pair(ours, maps, repeats=3)
    detail = f"{mine:.2f} s against {theirs:.2f} s"
    return [bound("prefill of 2,048 tokens, eager with maps / ours", ratio, ">=", 2.5, detail)]


def long_prompt(llm: LLM) -> list[Result]:
    """Peak memory of extraction from a prompt of 8,000 tokens."""
    task = NIAH(lengths=[7890, 7000], depths=[50.0])
    task.prepare(llm)
    results = []
    for batch, limits in (([0], ("<=", 2.0)), ([0, 1], (None, None))):
        samples = [task.sample(index) for index in batch]
        gc.collect()
        with peak_memory() as peak:
            decode(llm, samples)
            gib = peak()
        longest = max(len(sample.ids) for sample in samples)
        detail = f"{longest} tokens; eager attention maps alone: {30 * 9 * longest**2 * 4 / 2**30:.0f} GiB a prompt"
        results.append(bound(f"peak memory above the model, {len(batch)} prompt(s), GiB", gib, *limits, detail))
    return results


LENGTHS = (1000, 2000, 4000, 8000)
"""Tokens of prompts in the table of lengths."""


@torch.inference_mode()
def at_length(tokens: int) -> dict[str, float]:
    """One prompt as `decode` runs it, in chunks: seconds of prefill and of a recorded step, memory above the model."""
    llm = LLM()
    ids = torch.randint(10, 40_000, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    batch = pad([Sample(0, "0", ids, [(100, 140)], 17, "", "")], 0, llm.model.device)
    llm.model(batch.tokens[:, :8])  # so that nothing is set up for the first time under the clock
    seconds = []
    gc.collect()
    with peak_memory() as peak:
        start = time.perf_counter()
        cache = prefill_prompts(llm.model, batch, batch.tokens.shape[1], chunk=llm.prefill_chunk)
        prefilled = time.perf_counter() - start
        with instrumented(llm.model):
            for keys in range(tokens, tokens + 16):
                plan = RecordingPlan(columns=reasoning_columns(batch, keys, ExcludedKeys()))
                with recording(llm.model, plan):
                    seconds.append(timed(lambda keys=keys: decode_step(llm.model, batch, cache, keys)))  # type: ignore[misc]
        mib = peak() * 1024
    return {"tokens": tokens, "prefill": prefilled, "step": statistics.median(seconds), "mib": mib}


def lengths(llm: LLM) -> list[Result]:
    """Prefill, memory and steps by length, each in a process of its own: memory once freed would hide later growth."""
    results, found = [], []
    for tokens in LENGTHS:
        code = f"import json; from tests.benchmarks.bench import at_length; print(json.dumps(at_length({tokens})))"
        run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
        row = json.loads(run.stdout.splitlines()[-1])
        found.append(row)
        detail = f"{row['mib']:.0f} MiB above the model, {row['step'] * 1e3:.1f} ms a recorded step"
        results.append(bound(f"prefill of {tokens:,} tokens, tokens/s", tokens / row["prefill"], None, None, detail))
    config = llm.model.config
    key = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 / 2**20
    grown, cache = found[-1]["mib"] - found[-2]["mib"], key * (LENGTHS[-1] - LENGTHS[-2])
    detail = f"{grown:.0f} against {cache:.0f} MiB"
    return [*results, bound("memory from 4,000 to 8,000 tokens / their KV cache", grown / cache, "<=", 1.5, detail)]


@torch.inference_mode()
def common_beginnings(llm: LLM) -> list[Result]:
    """Prefill of a needle grid's column, eleven depths of one haystack of 2,048 tokens: together, and one by one."""
    task = NIAH(lengths=[2048], depths={"start": 0, "stop": 100, "step": 10}, haystack_start="zero")
    task.prepare(llm)
    samples = [task.sample(index) for index in task.order()]

    def run(some: list[Sample]) -> None:
        batch = pad(some, 0, llm.model.device)
        prefill_prompts(llm.model, batch, batch.width, chunk=llm.prefill_chunk)

    shared, alone, ratio = pair(lambda: run(samples), lambda: [run([sample]) for sample in samples], repeats=2)
    detail = f"{shared:.1f} s against {alone:.1f} s, {len(samples)} prompts of {len(samples[0].ids)} tokens"
    return [bound("prefill of 11 depths, prompt by prompt / common beginnings once", ratio, ">=", 1.4, detail)]


def ablation(llm: LLM) -> list[Result]:
    """15 numbers of heads, static and random ones, on a prompt of about 1,000 tokens: together, and one by one."""
    task = NIAH(lengths=[890], depths=[50.0], seed=1)
    task.prepare(llm)
    sample = task.sample(0)
    scores = np.random.default_rng(0).random((30, 9))
    conditions: list[Condition] = [
        *(AblateDynamic(top=5 * step) for step in range(15)),
        AblateStatic(),
        AblateRandom(),
    ]
    for condition in conditions:
        condition.prepare(Preparation(Ranking(scores, True, "sampled"), HeadCounts((0.0, 1.0)), average=5.0))
    found: dict[str, list[list[int]]] = {"together": [], "alone": []}

    def tokens(some: list[Condition]) -> list[list[int]]:
        got = generate_ablated(llm, [sample], some, DynamicHeads())
        return [got.tokens[0, place, : got.lengths[0, place]].tolist() for place in range(len(some))]

    together = timed(lambda: found["together"].extend(tokens(conditions)))
    alone = timed(lambda: [found["alone"].extend(tokens([condition])) for condition in conditions])
    same = sum(a == b for a, b in zip(found["together"], found["alone"], strict=True))
    detail = (
        f"{together:.1f} s against {alone:.1f} s, {len(sample.ids)} tokens, {same} of {len(conditions)} answers equal"
    )
    return [
        bound(
            "17 conditions of one prompt, each with a prefill of its own / together",
            alone / together,
            ">=",
            4.0,
            detail,
        )
    ]


class EpochTime(Callback):
    """Seconds of each training epoch's batches, validation left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.is_last_batch:  # before validation, which Lightning runs inside the epoch
            self.seconds.append(time.perf_counter() - self.start)


class Bare:
    """The same MLP, loss, optimiser, clipping and batches, data in memory, no framework."""

    def __init__(self, data: ScoreRows, hidden: tuple[int, ...], fused: bool) -> None:
        batches = data.batches("train")
        kept = [batches.batch(i) for i in range(len(batches))]
        self.hidden, self.scores = torch.cat([b.hidden for b in kept]), torch.cat([b.scores for b in kept])
        torch.manual_seed(0)
        self.net = MLP(data.hidden_size, hidden, data.num_heads, 0.1)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=3e-4, fused=fused)

    def epoch(self) -> None:
        for rows in torch.randperm(len(self.hidden)).split(128):
            loss = asymmetric_loss(self.net(self.hidden[rows]), self.scores[rows])
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()


def training(folder: Path, hidden: tuple[int, ...], name: str, samples: int, epochs: int) -> list[Result]:
    """Samples per second of `lightning fit` (logger and bar on) against the bare loop, epochs in turns."""
    identity = LLMIdentity("bench", "sha256:" + "0" * 64, layers=30, heads=9, hidden_size=576, dtype="float32")
    store = make_store(folder / str(samples), samples=samples, shards=20, identity=identity)
    data = ScoreRows(str(store))
    data.setup("fit")
    loops, clock = {"plain": Bare(data, hidden, fused=False), "fused": Bare(data, hidden, fused=True)}, EpochTime()
    probe = ProbeClassifier(576, 270, hidden=hidden)
    seconds: dict[str, list[float]] = {"plain": [], "fused": []}

    class Turns(Callback):
        """After each epoch of Lightning's, one of each bare loop."""

        def on_train_epoch_end(self, *_: object) -> None:
            for kind, loop in loops.items():
                seconds[kind].append(timed(loop.epoch))

    trainer = Trainer(
        max_epochs=epochs,
        limit_val_batches=1,  # the plateau schedule needs a loss; outside the timed part
        num_sanity_val_steps=0,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=TensorBoardLogger(folder / "tb"),
        callbacks=[clock, Turns(), TQDMProgressBar(refresh_rate=20)],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    trainer.fit(probe, datamodule=data)
    results = []
    for kind, times in seconds.items():
        ratio = statistics.median(b / ours for b, ours in zip(times[1:], clock.seconds[1:], strict=True))
        rate, bare = (len(loops[kind].hidden) / statistics.median(x[1:]) for x in (clock.seconds, times))
        title = f"probe training, {name}: lightning fit / bare loop with {kind} Adam"
        limits = (">=", 0.9) if kind == "fused" else (None, None)  # fused is what `lightning fit` runs: like for like
        results.append(bound(title, ratio, *limits, f"{rate:.0f} against {bare:.0f} rows/s"))
    return results


def bound(name: str, value: float, sign: str | None, limit: float | None, detail: str) -> Result:
    """One line of the report."""
    holds = None if limit is None else (value <= limit if sign == "<=" else value >= limit)
    return {"name": name, "value": value, "bound": f"{sign} {limit}" if sign else "", "holds": holds, "detail": detail}


def parts(folder: Path) -> dict[str, Callable[[], Iterator[Result]]]:
    """What is measured, by the name of its part."""
    from tests.benchmarks import bench_commands, bench_scale, bench_stores  # which take their helpers from here

    def of_llm(*measures: Callable[[LLM], Iterable[Result]]) -> Callable[[], Iterator[Result]]:
        return lambda: (result for llm in [LLM()] for measure in measures for result in measure(llm))

    def of(*measures: Callable[[], Iterable[Result]]) -> Callable[[], Iterator[Result]]:
        return lambda: (result for measure in measures for result in measure())

    return {
        "commands": of(*bench_commands.measurements(folder)),
        "decoding": of_llm(decoding, whole_prompts),
        "prefill": of_llm(prefilling, long_prompt, lengths, common_beginnings),
        "continuous": of_llm(
            lambda llm: continuous_batching(llm, turns=2), lambda llm: ablation_batching(llm, turns=2)
        ),
        "ablation": of_llm(ablation),
        "training": of(
            lambda: training(folder, (1024, 512, 512), "demo's MLP", 1600, 10),
            lambda: training(folder, (8192, 4096, 4096), "paper's MLP", 400, 5),
        ),
        "stores": of(*bench_stores.measurements(folder)),
        "scale": of(bench_scale.cost_model),
    }


def machine() -> dict[str, Any]:
    """What the measurements are of."""
    names = [line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return {
        **{"cpu": names[0] if names else platform.processor(), "cpus": os.cpu_count(), "threads": threads},
        **{"capability": capability, "torch": torch.__version__, "gpu": gpu, "load": os.getloadavg()[0]},
    }


def cpu_info() -> list[str]:
    """Lines about the processor, where Linux has them."""
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def main() -> None:
    """Measure all parts, or those that are named, print each result and the table, and write bench.json as it grows."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        known = parts(Path(name))
        parser = argparse.ArgumentParser(description="Speed and memory. A GPU has its own: tests.benchmarks.bench_gpu.")
        parser.add_argument("parts", nargs="*", choices=[*known, []], help="; ".join(known))
        chosen = parser.parse_args().parts or list(known)
        results, here = list[Result](), machine()
        for part in chosen:
            for result in known[part]():
                results.append({"part": part, **result})
                say(result)
                # After each result: a run of an hour that is stopped keeps what it has measured.
                Path("bench.json").write_text(json.dumps({"machine": here, "results": results}, indent=2) + "\n")
    show(results, here)
    print("written to bench.json")


def run_alone(measurements: Callable[[Path], Iterable[Callable[[], list[Result]]]]) -> None:
    """A part by itself: print a line for each result, and the time of all."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for measure in measurements(Path(folder)):
            for result in measure():
                say(result)
    print(f"{time.perf_counter() - begun:.0f} s, {torch.get_num_threads()} threads")


def say(result: Result) -> None:
    """Print a result as soon as it is there."""
    print(f"{result['name']}: {result['value']:.3f} {result['bound']} ({result['detail']})", flush=True)


def show(results: list[Result], here: dict[str, Any]) -> None:
    """Print the table."""
    cpu = f"{here['cpus']} CPUs ({here['cpu']}, {here['capability']}), {here['threads']} threads"
    table = Table(title=f"{cpu}, torch {here['torch']}, {here['gpu'] or 'no GPU'}")
    for header in ("figure", "value", "bound", "holds", "detail"):
        table.add_column(header)
    for result in results:
        holds = {None: "", True: "yes", False: "NO"}[result["holds"]]
        table.add_row(result["name"], f"{result['value']:.3f}", result["bound"], holds, result["detail"])
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
