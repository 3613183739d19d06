"""`python -m tests.benchmarks.bench_scale`: the guide's cost model of a cluster against runs of 1, 2 and 4 processes.

Speeds of one processor (FLOP a second of prefill, bytes a second of decode steps) are taken from the first run: short
prompts, one process. From them the formulas predict longer prompts, a model of half the layers, and more processes.
Processor time of one thread a process is compared, not wall time: processes may share cores, and other work goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

import extract.generation.prefill
import extract.pipeline.extraction
from extract.llm import LLM
from extract.store import ScoreStore
from extract.utils import say

BATCH = 4
"""Prompts of a batch, so that 16 prompts are a batch for each of four processes."""
FLOAT = 4
"""Bytes of a float32, in which the embedded LLM runs."""


class Clock(Callback):
    """Processor seconds of prefill and decode steps, and what was computed, into a file a process.

    Args:
        folder: Where the files go.

    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.counted = {"prefill": 0.0, "decode": 0.0, "tokens": 0, "squares": 0, "steps": 0, "keys": 0, "rows": 0}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Measure inside of the two functions that do the work."""
        del trainer, pl_module, stage
        prefill: Any = extract.generation.prefill
        pipeline: Any = extract.pipeline.extraction
        run_prompt, decode = prefill.run_prompt, pipeline.decode

        def timed_prompt(model: Any, prompt: Any, start: int, *arguments: Any) -> None:
            began, length = time.process_time(), prompt.shape[1]
            run_prompt(model, prompt, start, *arguments)
            self._add(prefill=time.process_time() - began, tokens=length - start, squares=length**2 - start**2)

        def timed_decode(llm: Any, samples: Any, *arguments: Any) -> Any:
            began, before = time.process_time(), self.counted["prefill"]
            decoded = decode(llm, samples, *arguments)
            steps, width = max(decoded.lengths), max(len(sample.ids) for sample in samples)
            keys = len(samples) * sum(width + step for step in range(steps))
            seconds = time.process_time() - began - (self.counted["prefill"] - before)
            self._add(decode=seconds, steps=steps, keys=keys, rows=sum(decoded.lengths))
            return decoded

        prefill.run_prompt, pipeline.decode = timed_prompt, timed_decode

    def _add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.counted[name] += amount

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this process's file."""
        del pl_module
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.counted))


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        body: Parameters that every token passes: all but the embedding and the head.
        head: Parameters of the head, which a decode step passes, too.
        layers: Layers.
        heads: Query heads of a layer.
        kv_heads: Key and value heads of a layer.
        size: Size of a head.
        hidden: Hidden size.

    """

    body: int
    head: int
    layers: int
    heads: int
    kv_heads: int
    size: int
    hidden: int

    @classmethod
    def of(cls, llm: LLM) -> "Shape":
        """That of a loaded model."""
        config, model = llm.model.config, llm.model
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        outside = {id(weight): weight.numel() for weight in (embedding, head)}  # once where they are tied
        everything = sum(weight.numel() for weight in {id(one): one for one in model.parameters()}.values())
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        counts = (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads)
        return cls(everything - sum(outside.values()), head.numel(), *counts, size, config.hidden_size)

    def prefill_flop(self, tokens: float, squares: float) -> float:
        """FLOP of prompts with so many tokens in all, and such a sum of their squares."""
        return 2 * self.body * tokens + 2 * self.layers * self.heads * self.size * squares

    def decode_bytes(self, steps: float, keys: float) -> float:
        """Bytes that decode steps read: weights at each, keys and values of every key of a batch."""
        return FLOAT * ((self.body + self.head) * steps + 2 * self.layers * self.kv_heads * self.size * keys)

    def row_bytes(self) -> float:
        """Bytes of a row without contributions."""
        return FLOAT * self.hidden + 9 * self.layers * self.heads + 55


def prompt_bytes(tokens: float) -> float:
    """Bytes of a prompt: its tokens, its texts, and its part of what every shard has."""
    return 8 * tokens + 440 + 2000 / BATCH


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        model: `whole` or `half` (half of its layers).
        length: Haystack tokens.
        processes: Processes.

    """

    model: str
    length: int
    processes: int


def half_model(folder: Path) -> Shape:
    """The embedded LLM with half of its layers, saved; its answers are no language, its costs those of such a model."""
    llm = LLM()
    layers = llm.model.config.num_hidden_layers // 2
    llm.model.model.layers = llm.model.model.layers[:layers]
    llm.model.config.num_hidden_layers = layers
    if getattr(llm.model.config, "layer_types", None):
        llm.model.config.layer_types = llm.model.config.layer_types[:layers]
    llm.model.save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)
    return Shape.of(llm)


def run(case: Case, prompts: int, base: Path, names: dict[str, str]) -> dict[str, Any]:
    """Extract, and sum up what the processes counted."""
    folder = base / f"{case.model}-{case.length}-{case.processes}"
    task = "--data.init_args.task.init_args"
    callback = {"class_path": "tests.benchmarks.bench_scale.Clock", "init_args": {"folder": str(folder / "clock")}}
    words = [
        *(sys.executable, "-m", "probe", "predict", "-c", "configs/extract/niah.yaml"),
        *("--llm.init_args.name", names[case.model], "--store", folder / "store"),
        *(f"{task}.lengths", f"[{case.length}]", f"{task}.runs", prompts, "--data.init_args.batch_size", BATCH),
        *("--trainer.accelerator", "cpu", "--trainer.devices", case.processes, "--trainer.strategy", "ddp"),
        *("--trainer.default_root_dir", folder / "runs", "--trainer.callbacks+", json.dumps(callback)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(word) for word in words], env=environment, check=True, stdout=subprocess.DEVNULL)
    parts = [json.loads(file.read_text()) for file in sorted((folder / "clock").iterdir())]
    store = ScoreStore(folder / "store")
    shards = [file for name in ("steps", "samples") for file in (folder / "store" / name).iterdir()]
    sizes = Counter[str]()
    for file in shards:
        sizes[file.parent.name] += file.stat().st_size
    return {
        **{name: sum(part[name] for part in parts) for name in parts[0]},
        "processes": len(parts),
        "fingerprint": store.fingerprint,
        "row_bytes": sizes["steps"] / store.manifest["steps"],
        "prompt_bytes": sizes["samples"] / prompts,
        "prompt_tokens": sum(len(ids) for ids in store.dataset("samples")["prompt"]) / prompts,
        "stored_rows": store.manifest["steps"],
        "shards": len(shards),
        "files": sum(file.is_file() for file in (folder / "store").rglob("*")),
    }


def compare(found: dict[str, Any], shape: Shape, prompts: int, speeds: tuple[float, float]) -> dict[str, Any]:
    """Measured and predicted, by quantity."""
    flops, reads = speeds
    return {
        "prefill": (found["prefill"], shape.prefill_flop(found["tokens"], found["squares"]) / flops),
        "decode": (found["decode"], shape.decode_bytes(found["steps"], found["keys"]) / reads),
        "row bytes": (found["row_bytes"], shape.row_bytes()),
        "prompt bytes": (found["prompt_bytes"], prompt_bytes(found["prompt_tokens"])),
        "shards": (found["shards"], 2 * prompts / BATCH),
    }


def line(case: Case, found: dict[str, Any], pairs: dict[str, Any]) -> str:
    """What a run was, and each quantity with its ratio measured / predicted."""
    name = f"{case.model} model, {case.length} haystack tokens, {case.processes} processes"
    done = f"{found['tokens']:,} tokens prefilled, {found['stored_rows']} rows, {found['files']} files"
    ratios = (f"{what} {value:.4g} ({value / predicted:.2f})" for what, (value, predicted) in pairs.items())
    return f"{name}: {done}; {', '.join(ratios)}"


def measure(prompts: int, lengths: tuple[int, int]) -> dict[str, Any]:
    """Run the cases: shapes of the models, what was measured, and the first run's speeds."""
    short, long = lengths
    cases = [Case("whole", short, 1), *(Case("whole", long, n) for n in (1, 2, 4)), Case("half", short, 1)]
    runs, speeds = list[dict[str, Any]](), (0.0, 0.0)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        shapes = {"half": half_model(base / "half"), "whole": Shape.of(LLM())}
        names = {"half": str(base / "half"), "whole": "embedded:smollm2"}
        for case in cases:
            found, shape = run(case, prompts, base, names), shapes[case.model]
            if not speeds[0]:
                flop = shape.prefill_flop(found["tokens"], found["squares"])
                speeds = (flop / found["prefill"], shape.decode_bytes(found["steps"], found["keys"]) / found["decode"])
            pairs = compare(found, shape, prompts, speeds)
            runs.append({**vars(case), **found, "compared": pairs})
            say(line(case, found, pairs))
    return {"shapes": {name: vars(shape) for name, shape in shapes.items()}, "runs": runs, "speeds": speeds}


def cost_model() -> list[dict[str, Any]]:
    """Measured by predicted quantities of every run but the first, for `make bench`."""
    return [
        {
            "name": f"cost model, measured / predicted {what}: {run['model']} model, {run['length']} haystack tokens, "
            f"{run['processes']} processes",
            **{"value": value / predicted, "bound": "", "holds": None, "detail": f"{value:.4g}, {predicted:.4g}"},
        }
        for run in measure(16, (150, 400))["runs"][1:]
        for what, (value, predicted) in run["compared"].items()
        if what in ("prefill", "decode", "row bytes")
    ]


def main() -> None:
    """Run the cases, print a line for each, and write what was measured."""
    parser = argparse.ArgumentParser(description="The cost model against runs of 1, 2 and 4 processes.")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--lengths", type=int, nargs=2, default=(150, 400), help="haystack tokens, short and long")
    parser.add_argument("--output", type=Path, help="JSON file for what was measured")
    options = parser.parse_args()
    measured = measure(options.prompts, tuple(options.lengths))
    flops, reads = measured["speeds"]
    say(f"speeds of the first: {flops / 1e9:.1f} GFLOP/s in prefill, {reads / 1e9:.2f} GB/s in decode steps")
    long = [run for run in measured["runs"] if (run["model"], run["length"]) == ("whole", options.lengths[1])]
    say(f"stores of 1, 2 and 4 processes equal: {len({run['fingerprint'] for run in long}) == 1}")
    if options.output:
        options.output.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
