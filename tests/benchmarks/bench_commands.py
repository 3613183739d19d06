"""`python -m tests.benchmarks.bench_commands`: whole commands, as a user runs them; a part of `make bench`.

The demo's first table, the start of a stage, and extraction and training beside a process that keeps a core busy.
"""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.bench import Result, bound, run_alone, timed

NIAH = ("predict", "-c", "configs/extract/niah.yaml", "-c", "configs/demo/niah.yaml")
CLASSIFIER = ("-c", "configs/probe.yaml", "-c", "configs/demo/probe.yaml")
SHARED = ("--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp")
"""As the Makefile's: two processes, where there is no GPU."""
START = f"""
from contextlib import suppress
from probe.cli.main import main
with suppress(SystemExit):
    main(['predict', '-c', '{NIAH[2]}', '--print_config'])
"""
LOAD = START + "from extract import LLM\nLLM().identity"


def stage(*words: object) -> None:
    """Run a stage quietly."""
    command = [sys.executable, "-m", "probe", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def processor_seconds(code: str) -> float:
    """Processor seconds of a Python process that runs some code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts() -> list[Result]:
    """Processor time of imports and config, and of imports and the embedded LLM, loaded and hashed."""
    results = []
    for name, code in (("imports and config", START), ("the same and the embedded LLM", LOAD)):
        seconds = statistics.median(processor_seconds(code) for _ in range(3))
        results.append(bound(f"start of a stage, {name}, s", seconds, "<=", 5.0, "processor time, median of 3"))
    return results


def first_table(folder: Path) -> list[Result]:
    """Minutes to the first table of `make demo`, and its metrics."""
    store, runs = folder / "demo", folder / "runs"
    own, kept = ("--store", store), ("--checkpoint.init_args.dirpath", folder / "ckpt")
    probe = (*CLASSIFIER, *own, *kept, "--trainer.default_root_dir", runs, "--trainer.logger.init_args.save_dir", runs)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("extraction", lambda: stage(*NIAH, *SHARED, *own, "--trainer.default_root_dir", runs)),
        ("fit", lambda: stage("fit", *probe)),
        ("test", lambda: stage("test", *probe, "--ckpt_path", folder / "ckpt" / "best.ckpt")),
    ]
    minutes = {name: timed(step) / 60 for name, step in steps}
    found = json.loads(next(runs.rglob("results.json")).read_text())["probe"]
    metrics = ", ".join(f"{name} {found[name]:.3f}" for name in ("f1", "auprc"))
    detail = ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
    return [bound("demo, first table, minutes", sum(minutes.values()), "<=", 5.0, f"{detail}; {metrics}")]


@contextmanager
def busy() -> Iterator[None]:
    """A process that keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def beside_other_work(folder: Path, turns: int = 2) -> list[Result]:
    """Extraction and training beside a busy process / alone, in turns."""
    task, made = "--data.init_args.task.init_args", iter(range(100))

    def extract() -> None:
        store = folder / str(next(made))
        own = ("--store", store, f"{task}.runs", 32, "--trainer.default_root_dir", folder / "runs")
        stage(*NIAH, *own, "--data.init_args.batch_size", 32)

    def fit() -> None:
        store, number = folder / "0", next(made)
        own = ("--store", store, "--trainer.default_root_dir", folder / "runs", "--trainer.logger", "false")
        stage(
            "fit", *CLASSIFIER, *own, "--trainer.max_epochs", 8, "--checkpoint.init_args.dirpath", folder / f"c{number}"
        )

    results = []
    for name, action in (("extraction of 32 prompts", extract), ("training, 8 epochs", fit)):
        alone, beside = list[float](), list[float]()
        for _ in range(turns):
            alone.append(timed(action))
            with busy():
                beside.append(timed(action))
        ratio = statistics.median(beside) / statistics.median(alone)
        detail = f"{statistics.median(beside):.1f} against {statistics.median(alone):.1f} s"
        results.append(bound(f"{name}, beside a busy process / alone", ratio, "<=", 2.2, detail))
    return results


def measurements(folder: Path) -> Sequence[Callable[[], list[Result]]]:
    """All of them, for `make bench`."""
    return [starts, lambda: beside_other_work(folder / "busy"), lambda: first_table(folder / "first")]


if __name__ == "__main__":
    run_alone(measurements)
