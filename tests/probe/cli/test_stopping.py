"""SIGTERM and Ctrl-C: what is finished is kept, one line says how to go on, exit codes 143 and 130."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

import extract.pipeline.extraction
from extract.generation import decode
from extract.stopping import STOP, Stopped
from extract.store import ScoreStore
from probe.cli import main as command_line
from tests.conftest import ROOT, Run
from tests.helpers.processes import started
from tests.helpers.signals import signal_at
from tests.helpers.stores import make_store

Extract = Callable[..., tuple[int, str]]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def stopped(said: str) -> str:
    """The one line of a stopped run."""
    (line,) = [line for line in said.splitlines() if line.startswith("stopped by ")]
    assert "Traceback" not in said
    return line


@pytest.mark.parametrize("signum", CODES)
def test_predict_stops_after_its_batch_and_goes_on(
    signum: signal.Signals, extract_tiny: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch in which the signal comes is finished and kept; the printed command is the same one."""
    store, whole = tmp_path / "store", tmp_path / "whole"
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signum)
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(extract.pipeline.extraction, "decode", interrupted)
        code, said = extract_tiny(store)
    assert len(calls) == 2
    assert code == CODES[signum]
    line = stopped(said)
    assert line.startswith(f"stopped by {signum.name}; what is finished is kept; go on with: lightning predict -c ")
    assert f"--store {store}" in line
    assert sorted(file.name for file in (store / "parts").iterdir()) == ["000000.json", "000001.json"]
    assert extract_tiny(store)[0] == extract_tiny(whole)[0] == 0
    assert ScoreStore(store).fingerprint == ScoreStore(whole).fingerprint


@pytest.mark.parametrize("hook", ["on_test_batch_start", "on_test_start", "on_test_epoch_end"])
def test_a_test_stops_without_results(
    hook: str, run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Before, within and after its batches."""
    store = make_store(tmp_path / "store")
    callbacks = [{"class_path": "probe.Artifacts", "init_args": {"folder": str(tmp_path / "out")}}]
    code, said = run(
        *("test", "-c", "configs/dynamism.yaml", "--store", store, "--trainer.accelerator", "cpu"),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
        *("--trainer.default_root_dir", tmp_path, "--trainer.callbacks", json.dumps(callbacks)),
        *("--model.init_args.static_top", 2, "--model.init_args.static_sizes", "[1, 4]"),
        *("--trainer.callbacks+", signal_at(hook, 0)),
    )
    assert code == 143, said
    assert stopped(said)
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_in_a_batch_waits_for_its_end() -> None:
    """Outside of batches it is obeyed where it comes; only the first one counts."""
    STOP.reset()
    with pytest.raises(Stopped, match="143"):
        STOP.received(signal.SIGTERM)
    STOP.received(signal.SIGINT)
    with pytest.raises(Stopped, match="143"):
        STOP.check()
    STOP.reset()
    finished = []
    with pytest.raises(Stopped, match="130"), STOP.batch():
        STOP.received(signal.SIGINT)
        finished.append(1)
    assert finished
    with pytest.raises(Stopped), STOP.batch():
        finished.append(2)
    assert finished == [1]
    STOP.reset()


def test_what_a_stopped_command_raises_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries wrap exceptions, or swallow them: after a signal the end is the same."""

    def fails(_: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except BaseException as error:
            raise RuntimeError("wrapped") from error

    monkeypatch.setattr(command_line, "_dispatch", fails)
    code, said = run("report", "some runs")
    assert (code, stopped(said)) == (130, stopped(said))
    assert said.endswith("go on with: lightning report 'some runs'\n")
    monkeypatch.setattr(command_line, "_dispatch", lambda _: STOP.__setattr__("signum", signal.SIGTERM))
    assert run("report", "runs")[0] == 143


def start(*words: str, **environment: str) -> "subprocess.Popen[str]":
    """Another interpreter."""
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        start_new_session=True,
    )


SWALLOWED = """
import sys, time
from probe.cli import main as command_line
def swallow(argv):
    print("runs", flush=True)
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)
command_line._dispatch = swallow
sys.exit(command_line.main(["report", "runs"]))
"""


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_a_second_ctrl_c_or_some_seconds_end_what_does_not_obey(signals: tuple[signal.Signals, ...]) -> None:
    process = start("-c", SWALLOWED)
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    process.send_signal(signals[0])
    if len(signals) == 2:
        time.sleep(1.5)
        process.send_signal(signals[1])
    _, said = process.communicate(timeout=20)
    assert process.returncode == CODES[signals[0]]
    assert stopped(said)


def test_ctrl_c_during_imports(tmp_path: Path) -> None:
    """`site` of a folder stops the import of torch, which would take long on a busy machine."""
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    words = shlex.split("-m probe test -c configs/dynamism.yaml")
    process = start(*words, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stopped(said).endswith("lightning test -c configs/dynamism.yaml")


IGNORED = """
import os, signal, sys
from probe.cli import main as command_line
signal.signal(signal.SIGINT, signal.SIG_IGN)
command_line._dispatch = lambda _: os.kill(os.getpid(), signal.SIGINT)
sys.exit(command_line.main(["report", "runs"]))
"""


def test_a_signal_that_is_ignored_stays_so() -> None:
    process = start("-c", IGNORED)
    assert (process.communicate(timeout=20)[1], process.returncode) == ("", 0)


CHILD = """
import sys, time
from probe.cli import main as command_line
def wait(argv):
    print("runs", flush=True)
    time.sleep(60)
command_line._dispatch = wait
sys.exit(command_line.main(["report", "runs"]))
"""
PARENT = f"""
import os, subprocess, sys
from probe.cli.stopping.run_processes import FIRST
process = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env={{**os.environ, FIRST: str(os.getpid())}})
process.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_further_processes_end_with_the_first() -> None:
    process = start("-c", PARENT)
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    process.kill()
    process.communicate(timeout=20)  # the pipes, which both have, close


def test_rag_keeps_finished_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of questions is a batch: its trials are written before the signal is obeyed."""
    from probe.rag.evaluation import RagEvaluation

    written: list[int] = []

    class Runner:
        def batches(self) -> dict[int, list[int]]:
            return {0: [0], 1: [1], 2: [2]}

        def run(self, numbers: list[int], *_: Any) -> list[int]:
            if numbers == [1]:
                STOP.received(signal.SIGTERM)
            return numbers

    class Trials:
        def write(self, number: int, _: Any) -> None:
            written.append(number)

    class Trainer:
        global_rank, world_size, is_global_zero = 0, 1, False

    evaluation: Any = RagEvaluation.__new__(RagEvaluation)
    evaluation.runner, evaluation.trials, evaluation.strategies = Runner(), Trials(), []
    STOP.reset()
    with pytest.raises(Stopped):
        evaluation._run(Trainer(), set())
    STOP.reset()
    assert written == [0, 1]


class TwoProcesses:
    """Extraction by two processes: as a user's command, or as a fork, where a strategy needs no command to begin more.

    Attributes:
        said: File for what both write.

    """

    def __init__(self, strategy: str, store: Path, folder: Path, *more: object) -> None:
        self.said = folder / "said.txt"
        words: list[object] = [
            *("predict", "-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml"),
            *("--trainer.devices", 2, "--trainer.strategy", strategy, "--trainer.default_root_dir", folder),
            *("--store", store, *more),
        ]
        self.process: ForkServerProcess | subprocess.Popen[bytes]
        if strategy == "ddp_spawn":
            self.process = started(*words, output=self.said)
        else:
            with self.said.open("w") as file:
                command = [sys.executable, "-m", "probe", *map(str, words)]
                options: dict[str, Any] = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
                self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)

    def code(self) -> int | None:
        """Exit code of the first process, once it has ended."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def end(self, seconds: float = 120) -> tuple[int | None, str]:
        """Wait for the first process and all that it began: its exit code, and what they wrote."""
        first, family, begun = psutil.Process(self.process.pid), set[psutil.Process](), time.monotonic()
        while self.code() is None:
            assert time.monotonic() - begun < seconds
            with suppress(psutil.NoSuchProcess):
                family.update(first.children(recursive=True))
            time.sleep(0.05)
        assert family
        assert not psutil.wait_procs(family, timeout=60)[1]
        return self.code(), self.said.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_several_processes_stop_together(strategy: str, tiny_llm_folder: Path, tmp_path: Path) -> None:
    """The signal reaches the first process only; each batch that was begun is kept, and no process stays behind."""
    store, many = tmp_path / "store", ("--data.init_args.task.init_args.runs", 400)
    both = TwoProcesses(strategy, store, tmp_path, "--llm.init_args.name", tiny_llm_folder, *many)
    while len(list(store.glob("parts/*.json"))) < 4:
        assert both.code() is None
        time.sleep(0.05)
    os.kill(both.process.pid, signal.SIGTERM)
    code, said = both.end()
    assert code == 143
    assert f"--store {store}" in stopped(said)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_bad_input_of_several_processes_is_one_line(strategy: str, tiny_llm_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = tmp_path / "file" / "store"
    code, said = TwoProcesses(strategy, store, tmp_path, "--llm.init_args.name", tiny_llm_folder).end()
    assert code == 2
    assert "Traceback" not in said
    assert said.count("cannot write the store") == said.count("error: ") == 1
