"""A folder is locked for one run: the holder is named, and a lock of a run that is over is taken over, by one."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from extract.errors import UserError
from extract.utils import LOCK, FolderLock, release_locks
from extract.utils.files import locks as module
from extract.utils.files.processes import Process, _started, this_process
from tests.conftest import ROOT

FOREIGN = Process("node7", "0" * 12, 4242, 1)


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    yield
    release_locks()


@pytest.fixture
def other_run() -> Iterator[Process]:
    """Another process on this machine, until the test ends it."""
    process = subprocess.Popen(["sleep", "600"])
    own = this_process()
    yield Process(own.host, own.system, process.pid, _started(process.pid))
    process.kill()
    process.wait()


def hold(folder: Path, owner: Process, age: float = 0) -> Path:
    """A lock that a process made."""
    file = folder / LOCK
    file.write_text(json.dumps({**asdict(owner), "since": "2026-01-02 03:04:05", "command": "lightning predict"}))
    os.utime(file, times=(0, file.stat().st_mtime - age))
    return file


def test_a_lock_names_its_holder_and_is_removed(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "--store")
    lock.acquire()
    lock.acquire()  # the same process has it already
    record = json.loads((tmp_path / LOCK).read_text())
    assert (record["pid"], record["host"]) == (os.getpid(), this_process().host)
    assert record["command"].startswith("lightning")
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused_with_host_and_pid(tmp_path: Path, other_run: Process) -> None:
    hold(tmp_path, other_run, age=10 * module.STALE)  # however long ago: the process is seen to run
    with pytest.raises(UserError) as refused:
        FolderLock(tmp_path, "--store").acquire()
    line = str(refused.value)
    assert f"is being written by another run: host {other_run.host}, pid {other_run.pid}, since 2026" in line
    assert "lightning predict; wait for its end, or choose another --store" in line
    assert "\n" not in line


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    own = this_process()
    for owner in (
        Process(own.host, own.system, ended.pid, 1),
        Process(own.host, own.system, own.pid, own.started + 1),  # its number was given to another process
    ):
        hold(tmp_path, owner)
        FolderLock(tmp_path, "--store").acquire()
        assert json.loads((tmp_path / LOCK).read_text())["started"] == own.started
        release_locks()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_process_of_another_machine_is_over_when_it_gives_no_sign_of_life(tmp_path: Path, damaged: bool) -> None:
    for age in (0.0, module.STALE - 30):
        file = hold(tmp_path, FOREIGN, age)
        if damaged:
            state = file.stat()
            file.write_text("{")
            os.utime(file, ns=(0, state.st_mtime_ns))
        holder = "host unknown, pid unknown" if damaged else "host node7, pid 4242"
        with pytest.raises(UserError, match=f"{holder}.*or delete {re.escape(str(file))} if it is over"):
            FolderLock(tmp_path, "--store").acquire()
    hold(tmp_path, FOREIGN, module.STALE + 1)
    FolderLock(tmp_path, "--store").acquire()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("held", "waits"),
    [
        ({"slurm_job": "17", "slurm_restarts": 0}, True),
        ({"slurm_job": "17", "slurm_restarts": 1}, False),  # another step of the same start
        ({"slurm_job": "18", "slurm_restarts": 0}, False),
        ({"slurm_job": "17", "slurm_restarts": "0"}, False),
        ({}, False),
    ],
)
def test_a_job_that_starts_again_waits_for_its_earlier_start_only(
    held: dict[str, object],
    waits: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a node that has failed it gives no sign of life any more."""
    file = hold(tmp_path, FOREIGN)
    file.write_text(json.dumps({**json.loads(file.read_text()), **held}))
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            os.utime(file, times=(0, 0))

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    if not waits:
        with pytest.raises(UserError, match="is being written by another run"):
            FolderLock(tmp_path, "--store").acquire()
        assert naps == []
        return
    FolderLock(tmp_path, "--store").acquire()
    record = json.loads(file.read_text())
    assert (record["pid"], record["slurm_job"], record["slurm_restarts"]) == (os.getpid(), "17", 1)
    assert naps == [module.WAIT] * 3
    assert capsys.readouterr().err.count("waits until this job's earlier start on node7 is over") == 1


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.01)
    FolderLock(tmp_path, "--store").acquire()
    os.utime(tmp_path / LOCK, times=(0, 0))
    until = 500
    while (tmp_path / LOCK).stat().st_mtime == 0 and until:
        module.threading.Event().wait(0.01)
        until -= 1
    assert (tmp_path / LOCK).stat().st_mtime > 0


def test_a_lock_that_was_lost_is_neither_renewed_nor_removed(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "--store")
    lock.acquire()
    (tmp_path / LOCK).rename(tmp_path / "former")
    hold(tmp_path, FOREIGN)
    lock.release()
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "node7"


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("victim")
    (tmp_path / LOCK).symlink_to("victim")
    with pytest.raises(UserError, match="cannot lock"):
        FolderLock(tmp_path, "--store").acquire()
    assert (tmp_path / "victim").read_text() == "victim"


RACE = """
import sys
from pathlib import Path
from extract.errors import UserError
from extract.utils import FolderLock
sys.stdin.readline()
try:
    FolderLock(Path(sys.argv[1]), "--store").acquire()
    print("locked", flush=True)
except UserError:
    print("refused", flush=True)
sys.stdin.readline()
"""


def test_of_several_that_take_over_at_once_one_has_the_lock(tmp_path: Path) -> None:
    own = this_process()
    hold(tmp_path, Process(own.host, own.system, own.pid, own.started + 1))
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = sorted(run.stdout.readline().strip() for run in runs if run.stdout is not None)
    for run in runs:
        run.communicate("\n")
    assert said == ["locked", "refused", "refused", "refused"]
    assert list(tmp_path.iterdir()) == []  # released at the end of the process
