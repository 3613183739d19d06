"""The script for SLURM, without SLURM: options that sbatch knows, and commands that a stage understands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run

SCRIPT = ROOT / "configs" / "slurm" / "stage.sh"
LINES = SCRIPT.read_text().splitlines()
KNOWN = {
    "job-name": r"[\w-]+",
    "nodes": r"[1-9]\d*",
    "ntasks-per-node": r"[1-9]\d*",
    "gpus-per-node": r"[1-9]\d*",
    "cpus-per-task": r"[1-9]\d*",
    "time": r"(\d+-)?\d\d:\d\d:\d\d",
    "output": r"[\w%./-]+",
    "open-mode": r"append|truncate",
    "requeue": "",
    "signal": r"([BR]:)?(SIG)?[A-Z0-9]+@\d+",
}
"""Options of sbatch's manual, with the form of their values."""
EXAMPLES = [line.removeprefix("# ") for line in LINES if line.startswith("# sbatch ")]


def options() -> dict[str, str]:
    """The script's own, as sbatch reads them: in comments before the first command."""
    first = next(number for number, line in enumerate(LINES) if line and not line.startswith("#"))
    found = {}
    for number, line in enumerate(LINES):
        if line.startswith("#SBATCH"):
            assert number < first, "sbatch reads no option after a command"
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            assert match[1] not in found
            found[match[1]] = match[2] or ""
    return found


def submit(line: str, folder: Path, code: int = 0) -> tuple[int, list[str], dict[str, str]]:
    """What a line of the header starts: exit code, command of a process, its environment; srun is a stub."""
    words = shlex.split(line)[1:]
    place = words.index("configs/slurm/stage.sh")
    given = dict(zip(words[:place:2], words[1:place:2], strict=True))
    merged = {**options(), **{name.removeprefix("--"): value for name, value in given.items()}}
    stub, report = folder / "srun", folder / "report.json"
    text = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open(sys.argv.pop(1), 'w'))"
    stub.write_text(f'#!/bin/sh\n{shlex.quote(sys.executable)} -c {shlex.quote(text)} {report} "$@"\nexit {code}\n')
    stub.chmod(0o755)
    variables = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "SLURM_NNODES": merged["nodes"],
        "SLURM_NTASKS_PER_NODE": merged["ntasks-per-node"],
        "SLURM_CPUS_PER_TASK": merged["cpus-per-task"],
        "SLURM_JOB_ID": "17",
    }
    done = subprocess.run(["bash", SCRIPT, *words[place + 1 :]], env=variables, capture_output=True, check=False)
    called, environment = json.loads(report.read_text())
    return done.returncode, called[called.index("lightning") + 1 :], environment


def test_bash_reads_the_script() -> None:
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, LINES)) <= 120


def test_sbatch_knows_every_option_and_starts_the_job_again() -> None:
    found = options()
    assert found.keys() <= KNOWN.keys()
    assert [f"{name}={value}" for name, value in found.items() if not re.fullmatch(KNOWN[name], value)] == []
    assert {"requeue", "signal", "time"} <= found.keys()
    assert found["open-mode"] == "append"  # else the log of the first start is lost
    assert found["ntasks-per-node"] == found["gpus-per-node"]
    assert int(found["nodes"]) > 1
    assert found["signal"].startswith("SIGUSR1@")  # to the processes, not to the shell (B:)


@pytest.mark.parametrize("line", EXAMPLES)
def test_a_stage_understands_the_command_of_the_job(
    line: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many nodes and devices a node as SLURM gives; the options of the header reach the stage."""
    code, words, environment = submit(line, tmp_path)
    assert (code, environment["SRUN_CPUS_PER_TASK"]) == (0, options()["cpus-per-task"])
    with pytest.raises(SystemExit) as stop:
        run(*words, "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    nodes = re.search(r"--nodes (\d+)", line)
    assert f"\n  num_nodes: {nodes[1] if nodes else options()['nodes']}\n" in printed
    assert re.search(rf"\n  devices: '?{options()['ntasks-per-node']}'?\n", printed)
    assert "\n  strategy: ddp\n" in printed
    assert "\nstore: stores/niah\n" in printed


def test_examples_cover_several_nodes_and_one() -> None:
    assert [shlex.split(line)[1] for line in EXAMPLES] == ["configs/slurm/stage.sh", "--nodes"]


@pytest.mark.parametrize(
    ("code", "preempted", "asked"),
    [(0, "None", False), (3, "None", False), (143, "None", False), (143, "2026-01-02T03:04:05", True)],
)
def test_a_job_fails_where_its_processes_do_and_a_preempted_one_starts_again(
    code: int, preempted: str, asked: bool, tmp_path: Path
) -> None:
    """Stopped before its grace time is over, it would have ended as failed; `scancel` sends SIGTERM, too."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "PreemptTime={preempted}"\n')
    (tmp_path / "scontrol").chmod(0o755)
    assert submit(EXAMPLES[0], tmp_path, code)[0] == code
    calls = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
    assert calls == ["show job 17"] * (code == 143) + ["requeue 17"] * asked


@pytest.mark.parametrize(("words", "said"), [((), "usage: sbatch"), (("fit",), "start it with --ntasks-per-node")])
def test_a_job_without_a_stage_or_tasks_says_what_is_missing(words: tuple[str, ...], said: str) -> None:
    variables = {"PATH": os.environ["PATH"], "SLURM_NNODES": "2"}
    done = subprocess.run(
        ["bash", SCRIPT, *words], env=variables, capture_output=True, encoding="utf-8", check=False, timeout=60
    )
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="SLURM is not installed")
@pytest.mark.parametrize("line", EXAMPLES)
def test_sbatch_itself_reads_the_options(line: str) -> None:
    """Whether this cluster has such nodes is another question."""
    words = shlex.split(line)
    done = subprocess.run([words[0], "--test-only", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not re.search(r"unrecognized|unknown|invalid", done.stderr, flags=re.IGNORECASE), done.stderr
