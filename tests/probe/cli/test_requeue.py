"""SLURM's signal before a job's time limit, in stages that keep what is finished: requeued, and complete in the end."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import extract.pipeline.extraction
from extract.generation import decode
from extract.store import ScoreStore
from tests.conftest import ROOT
from tests.helpers.slurm import Job

Extract = Callable[..., tuple[int, str]]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(monkeypatch, tmp_path)


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """SIGUSR1 in the second batch; the batches that were computed."""
    calls: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return decode(*arguments)

    monkeypatch.setattr(extract.pipeline.extraction, "decode", interrupted)
    return calls


def test_an_extraction_is_requeued_and_goes_on(
    job: Job, signalled: list[int], extract_tiny: Extract, tmp_path: Path
) -> None:
    """Without a checkpoint, of which an extraction has none; what another job left is not its own."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hpc_ckpt_1.ckpt").write_bytes(b"a probe of another job")
    root = ("--trainer.default_root_dir", tmp_path / "runs")
    code, said = extract_tiny(tmp_path / "store", *root)
    assert code == 143
    assert job.asked() == ["requeue 17"]
    assert "SLURM requeues job 17" in said
    assert [line for line in said.splitlines() if line.startswith("stopped")] == [
        "stopped by SIGTERM; what is finished is kept"
    ]
    done = len(signalled)
    assert extract_tiny(tmp_path / "store", *root)[0] == extract_tiny(tmp_path / "whole")[0] == 0
    store, whole = ScoreStore(tmp_path / "store"), ScoreStore(tmp_path / "whole")
    assert store.fingerprint == whole.fingerprint
    batches = len(list((tmp_path / "whole" / "steps").iterdir()))
    assert 1 < done < batches
    assert len(signalled) == 2 * batches  # none was computed twice
    assert [file.name for file in tmp_path.rglob("hpc_ckpt_*")] == ["hpc_ckpt_1.ckpt"]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_further_process_of_the_job_leaves_it_to_the_first(
    job: Job, signalled: list[int], extract_tiny: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.cli.stopping.requeue.is_first", lambda: False)
    assert extract_tiny(tmp_path / "store")[0] == 0
    assert (job.asked(), len(signalled) > 2) == ([], True)


@pytest.mark.parametrize(
    ("script", "reason"), [("echo 'Job is not requeueable' >&2; exit 1", "Job is not requeueable"), ("", "scontrol: ")]
)
def test_a_job_that_slurm_does_not_requeue_runs_to_its_limit(
    script: str, reason: str, job: Job, signalled: list[int], extract_tiny: Extract, tmp_path: Path
) -> None:
    """It says so once, and computes on."""
    if script:
        job.scontrol(script)
    else:
        job.patch.setenv("PATH", str(tmp_path))
    code, said = extract_tiny(tmp_path / "store")
    assert code == 0
    (line,) = [line for line in said.splitlines() if "job 17" in line]
    assert line.startswith(f"SLURM does not requeue job 17 ({reason}")
    assert len(signalled) > 2


WAITING = """
import ctypes, signal, sys
from probe.cli.stopping.requeue import REQUEUE
from probe.cli.stopping.stoppable import stoppable

def wait_for_others():
    REQUEUE.begin(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, REQUEUE.handle)
    print("waits", flush=True)
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)  # for ever; no handler runs meanwhile

sys.exit(stoppable(["predict"], wait_for_others))
"""


def test_a_process_that_waits_in_a_library_is_requeued(job: Job) -> None:
    """As the first process does that has finished its batches before the others."""
    job.scontrol(f"echo $@ >> {job.folder}/asked\nkill -KILL $PPID")
    with subprocess.Popen([sys.executable, "-c", WAITING], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == -signal.SIGKILL
    assert job.asked() == ["requeue 17"]


def test_the_stub_is_found_first(job: Job) -> None:
    assert shutil.which("scontrol") == str(job.folder / "scontrol")
