"""`python -m tests.benchmarks.kills [--series 30] [--seed 0]`: stages killed at random moments end as if unbroken.

A series interrupts one stage up to `--interruptions` times by SIGKILL, SIGTERM or SIGINT, each time goes on as a user
would, by the printed command or else the same one, and compares what is left with an unbroken run's.
"""

import argparse
import json
import os
import random
import re
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import lightning.pytorch  # noqa: F401 (what every stage imports is imported once: runs are forks of this process)
import torch

from extract.llm import LLM
from extract.store import ScoreStore
from probe.cli.lightning_cli import StageCLI  # noqa: F401
from probe.cli.main import main
from probe.models import read_checkpoint
from probe.report import write_report  # noqa: F401
from tests.helpers.model_shapes import save_tiny_llama
from tests.helpers.stores import make_store

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
RUN_ONLY = {"command", "checkpoint", "trials", "versions", "software", "sha256"}
"""Keys of results that name the run, not its outcome."""
CPU = ("--trainer.accelerator", "cpu")
WIDTHS = ("--model.init_args.hidden", "[16]")
CORRELATION = ("--model.init_args.offsets", "2", "--data.init_args.permutations", "2", "--data.init_args.groups", "4")
DYNAMISM = ("--model.init_args.static_top", "2", "--model.init_args.static_sizes", "[1, 4]")
QUIET = (*CPU, "--trainer.enable_progress_bar", "false")


@dataclass(frozen=True)
class Stage:
    """A stage on small inputs.

    Attributes:
        command: Its arguments, for a folder that it writes to.
        outcome: What must be equal, read from that folder.

    """

    command: Callable[[Path], list[str]]
    outcome: Callable[[Path], Any]


def store_outcome(folder: Path) -> Any:
    """Fingerprint of a complete store whose shards have their hashes."""
    return ScoreStore(folder / "store").fingerprint


def fit_outcome(folder: Path) -> Any:
    """Weights of both checkpoints, and how far each was trained."""
    found = {}
    for name in ("best", "last"):
        checkpoint = read_checkpoint(folder / f"{name}.ckpt")
        weights = {key: value.numpy().tobytes().hex() for key, value in checkpoint["state_dict"].items()}
        found[name] = (weights, checkpoint["epoch"], checkpoint["global_step"])
    return found


def results_outcome(folder: Path) -> Any:
    """The numbers of results.json."""
    return outcome_only(json.loads((folder / "results.json").read_text()))


def page_outcome(folder: Path) -> Any:
    """The report, apart from its command, the minute of its making, and the checkout's commit, which may move on."""
    page = (folder / "page.html").read_text(encoding="utf-8").replace(str(folder), "FOLDER")
    return re.sub(r"generated \d{4}-[^<]*|(?<=version )[^<]*", "", page)


def outcome_only(value: Any) -> Any:
    """A record without what names the run."""
    if isinstance(value, dict):
        return {key: outcome_only(one) for key, one in value.items() if key not in RUN_ONLY}
    return [outcome_only(one) for one in value] if isinstance(value, list) else value


def callback(name: str, **arguments: Any) -> str:
    """A list of one callback, for `--trainer.callbacks`."""
    return json.dumps([{"class_path": name, "init_args": arguments}])


def predict(inputs: Path, config: str, *more: str) -> Stage:
    """Extraction with the tiny LLM."""

    def command(folder: Path) -> list[str]:
        return [
            *("predict", "-c", f"configs/extract/{config}.yaml", "--llm.init_args.name", f"{inputs}/llm", *CPU),
            *("--store", f"{folder}/store", "--trainer.default_root_dir", f"{folder}/runs"),
            *("--data.init_args.batch_size", "2", *more),
        ]

    return Stage(command, store_outcome)


def fit(inputs: Path, config: str, *more: str) -> Stage:
    """Training of a small probe with dropout, and a learning rate that drops."""

    def command(folder: Path) -> list[str]:
        saver: dict[str, Any] = {"dirpath": str(folder), "filename": "best", "monitor": "val/loss", "save_last": True}
        saver["enable_version_counter"] = False
        return [
            *("fit", "-c", f"configs/{config}.yaml", "--store", f"{inputs}/toy", *QUIET, "--trainer.logger", "false"),
            *("--trainer.callbacks", callback("lightning.pytorch.callbacks.ModelCheckpoint", **saver)),
            *WIDTHS,
            *("--model.init_args.lr", "0.05", "--model.init_args.patience", "0", "--model.init_args.factor", "0.5"),
            *("--trainer.max_epochs", "6", "--trainer.default_root_dir", f"{folder}/runs", *more),
        ]

    return Stage(command, fit_outcome)


def measure(config: str, store: Path, *more: str) -> Stage:
    """A measurement of a store."""

    def command(folder: Path) -> list[str]:
        words = [word.replace("FOLDER", str(folder)) for word in more]
        if "--trainer.callbacks" not in words:
            words += ["--trainer.callbacks", callback("probe.Artifacts", folder=str(folder))]
        return [
            *("test", "-c", f"configs/{config}.yaml", "--store", str(store), *QUIET, "--trainer.logger", "false"),
            *("--trainer.default_root_dir", f"{folder}/runs", *words),
        ]

    return Stage(command, results_outcome)


def rag(inputs: Path) -> Stage:
    """Masked RAG on three questions under three strategies."""
    source = {"class_path": "extract.SyntheticQA", "init_args": {"count": 3, "seed": 1, "decoys": 0}}
    task = {"source": source, "style": "chain", "budget": 12, "texts": {"examples": []}}
    names = ("DynamicHeadsStrategy", "StaticHeadsStrategy", "FullContext")
    evaluation = callback(
        "probe.rag.RagEvaluation",
        task={"class_path": "extract.MultiHopQA", "init_args": task},
        strategies=[{"class_path": f"probe.rag.{name}"} for name in names],
        trigger={"class_path": "probe.rag.RIND", "init_args": {"threshold": 0.5}},
        windows={"heads": 2, "k": 3, "gap": 2, "width": 6},
        decoding={"draft_length": 5, "batch_size": 1},
        trials="FOLDER/trials",
        folder="FOLDER",
        bootstrap={"resamples": 20},
    )
    words = ("--ckpt_path", f"{inputs}/regressor/best.ckpt", "--llm.init_args.name", f"{inputs}/llm")
    return measure("rag", inputs / "questions", *words, "--trainer.callbacks", evaluation)


def stages(inputs: Path) -> dict[str, Stage]:
    """Every stage, on the inputs that `prepare` has left in a folder."""
    task, tiny = "--data.init_args.task.init_args.", ("-c", "tests/configs/tiny_niah.yaml")
    ablation = ("-c", "tests/configs/tiny_ablation.yaml", "--llm.init_args.name", f"{inputs}/llm")
    ablation = (*ablation, "--model.init_args.trials", "FOLDER/trials")
    report = ["report", str(inputs), "--output"]
    return {
        "predict niah": predict(inputs, "niah", *tiny, f"{task}runs", "24"),
        "predict hotpotqa": predict(inputs, "hotpotqa", f"{task}budget", "8", f"{task}source.init_args.count", "16"),
        "fit classifier": fit(inputs, "probe"),
        "fit regressor": fit(inputs, "regressor"),
        "fit offset probes": fit(inputs, "offset_probes", "--data.init_args.offsets", "2"),
        "test classifier": measure("probe", inputs / "toy", "--ckpt_path", f"{inputs}/classifier/best.ckpt", *WIDTHS),
        "test ablation": measure("ablation/niah", inputs / "needles", *ablation),
        "test correlation": measure("correlation", inputs / "toy", *CORRELATION),
        "test dynamism": measure("dynamism", inputs / "toy", *DYNAMISM),
        "test rag": rag(inputs),
        "report": Stage(lambda folder: [*report, f"{folder}/page.html"], page_outcome),
    }


def prepare(inputs: Path, chosen: Iterable[str]) -> None:
    """The inputs of some stages: a store for training, and for others a tiny LLM, its stores, two probes."""
    make_store(inputs / "toy", samples=100)
    if all(name.startswith("fit") for name in chosen):
        return
    llm = LLM()
    save_tiny_llama(llm, inputs / "llm")
    make_store(inputs / "questions", samples=60, identity=LLM(str(inputs / "llm")).identity)
    needles = predict(inputs, "niah", "-c", "tests/configs/tiny_niah.yaml", *TASK_RUNS).command(inputs)
    finished(needles, inputs)
    (inputs / "store").rename(inputs / "needles")
    for name, config, store in (("classifier", "probe", "toy"), ("regressor", "regressor", "questions")):
        command = fit(inputs, config).command(inputs / name)
        finished([*command, "--store", str(inputs / store)], inputs)


TASK_RUNS = ("--data.init_args.task.init_args.runs", "12")


def start(argv: list[str], log: Path) -> int:
    """A command in a fork of this process, which writes its output to a file; its process id."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
        output = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(output, stream)
        code = main(argv)
    except SystemExit as ended:
        code = int(str(ended.code or 0))
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(process: int) -> int:
    """Its exit code; negative for a signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def finished(argv: list[str], folder: Path) -> float:
    """Run a command to its end; the seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    if code := wait(start(argv, folder / "log")):
        raise RuntimeError(f"exit code {code}: {shlex.join(argv)}\n{(folder / 'log').read_text()[-3000:]}")
    return time.monotonic() - began


def going_on(argv: list[str], signum: int, code: int, folder: Path) -> tuple[list[str], bool]:
    """The command that a user runs next, and whether all is as promised: one line, and the exit code."""
    lines = [line for line in (folder / "log").read_text().splitlines() if line.startswith("stopped by ")]
    if signum == signal.SIGKILL or code < 0:  # also a signal before Python ran a line of ours
        last = folder / "last.ckpt"
        unless = "--ckpt_path" in argv or argv[0] != "fit" or not last.is_file()
        return (argv if unless else [*argv, "--ckpt_path", str(last)]), code == -signum
    printed = shlex.split(lines[-1].partition("go on with: lightning ")[2]) if lines else argv
    return printed, len(lines) == 1 and code == 128 + signum


def series(
    stage: Stage, seconds: float, interruptions: int, folder: Path, rng: random.Random
) -> tuple[Path, list[str]]:
    """Interrupt a stage, go on, run it to its end, where it has written and what was seen; `!`: not as promised.

    A run that ends before its first signal shows nothing: it is repeated, with the time that it took as the longest
    wait, as a busy machine may have taken longer for the unbroken run.
    """
    for attempt in range(20):
        at = folder / str(attempt)
        at.mkdir(parents=True)
        argv, seen = stage.command(at), list[str]()
        for _ in range(interruptions):
            began = time.monotonic()
            process, signum = start(argv, at / "log"), rng.choice(SIGNALS)
            time.sleep(rng.uniform(0, seconds))
            with suppress(ProcessLookupError):
                os.kill(process, signum)
            if not (code := wait(process)):
                seconds = min(seconds, 0.9 * (time.monotonic() - began))
                break
            argv, promised = going_on(argv, signum, code, at)
            seen.append(f"{signum.name} {code}{'' if promised else '!'}")
        else:
            finished(argv, at)
        if seen:
            return at, seen
    raise RuntimeError("never interrupted")


def run(number: int, interruptions: int, seed: int, base: Path, only: str = "") -> bool:
    """All series over the stages in turn; whether all ended equal and as promised."""
    rng, inputs = random.Random(seed), base / "inputs"
    inputs.mkdir()
    chosen = {name: stage for name, stage in stages(inputs).items() if only in name}
    prepare(inputs, chosen)
    unbroken: dict[str, tuple[float, Any]] = {}
    counts, equal = Counter[str](), 0
    for index in range(number):
        name = list(chosen)[index % len(chosen)]
        stage, folder = chosen[name], base / f"series-{index}"
        try:
            if name not in unbroken:
                whole = base / f"whole-{index}"
                seconds = finished(stage.command(whole), whole)
                unbroken[name] = seconds, stage.outcome(whole)
            at, seen = series(stage, unbroken[name][0], interruptions, folder, rng)
            same = stage.outcome(at) == unbroken[name][1]
        except RuntimeError as error:  # a command that should have ended with 0
            seen, same = [f"{error}!"], False
        equal += same
        counts.update(seen)
        print(f"{index + 1:3} {name:18} {'equal' if same else 'DIFFERS'}: {', '.join(seen)}", flush=True)
    print(f"{equal} of {number} series equal; " + ", ".join(f"{what}: {n}" for what, n in sorted(counts.items())))
    return equal == number and not any("!" in what for what in counts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=30)
    parser.add_argument("--interruptions", type=int, default=2, help="of each series, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a stage's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not run(options.series, options.interruptions, options.seed, Path(temporary), options.only))
