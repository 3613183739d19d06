"""`python -m tests.benchmarks.nodes [--only predict]`: stages on two nodes end as on one, also when a node is killed.

Two agents of torchrun on the loopback interface are the nodes, with one process each (gloo). Every stage runs on one
node, on two, and on two of which one process is killed by SIGKILL as soon as the stage has written something; the
agents start both processes again (`--max-restarts`). Rows, weights and metrics must be equal. One node is one process,
and for training, whose batches are divided over processes, two.
"""

import argparse
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.kills import Stage, prepare, stages

STAGES = ("predict niah", "fit classifier", "test classifier", "test ablation", "test rag")
AGENT = (sys.executable, "-m", "torch.distributed.run")
FIRST_FILES = ("store/steps/*", "last.ckpt", "trials/0*")
"""What a stage writes before it ends; tests of a probe write nothing, and are not killed."""
RESTARTS = 3
"""Of the processes that are killed, and of those that cannot reach one that was."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


def start(
    argv: list[str], folder: Path, nodes: int, processes: int, restarts: int = 0
) -> list[subprocess.Popen[bytes]]:
    """The nodes' agents, each with so many processes of the command."""
    folder.mkdir(parents=True, exist_ok=True)
    where = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--local-addr", "127.0.0.1")
    launch = (*AGENT, "--nnodes", nodes, "--nproc-per-node", processes, "--max-restarts", restarts, *where)
    trainer = ("--trainer.num_nodes", nodes, "--trainer.devices", processes, "--trainer.strategy", "ddp")
    words = [str(word) for word in (*launch, "-m", "probe", *argv, *trainer)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return [
        subprocess.Popen(words, env=environment, stdout=(folder / f"log-{node}").open("wb"), stderr=subprocess.STDOUT)
        for node in range(nodes)
    ]


def finish(agents: list[subprocess.Popen[bytes]], argv: list[str], folder: Path) -> None:
    """Wait until all nodes have ended."""
    codes = [agent.wait() for agent in agents]
    if any(codes):
        logs = "\n".join((folder / f"log-{node}").read_text()[-2000:] for node in range(len(agents)))
        raise RuntimeError(f"exit codes {codes}: {shlex.join(argv)}\n{logs}")


def kill_second(agents: list[subprocess.Popen[bytes]], folder: Path) -> bool:
    """Kill the second node's process once the stage has written something; whether it still ran then."""
    while agents[1].poll() is None:
        workers = psutil.Process(agents[1].pid).children()
        if workers and any(file.stat().st_size for name in FIRST_FILES for file in folder.glob(name)):
            workers[0].kill()
            return True
        time.sleep(0.01)
    return False


def check(name: str, stage: Stage, base: Path) -> dict[str, bool]:
    """Whether a stage ends equal on two nodes, and on two of which one is killed."""
    outcomes: dict[str, Any] = {}
    killed, kinds = False, {"one": 1, "two": 2, "killed": 2}
    if name == "test classifier":
        del kinds["killed"]
    for kind, nodes in kinds.items():
        folder = base / name.replace(" ", "-") / kind
        argv = stage.command(folder)
        processes = 2 if nodes == 1 and argv[0] == "fit" else 1
        agents = start(argv, folder, nodes, processes, restarts=RESTARTS if kind == "killed" else 0)
        if kind == "killed":
            killed = kill_second(agents, folder)
        finish(agents, argv, folder)
        outcomes[kind] = stage.outcome(folder)
    found = {"two nodes equal one": outcomes["two"] == outcomes["one"]}
    if "killed" in kinds:
        found |= {"one was killed": killed, "its restart equals one": outcomes["killed"] == outcomes["one"]}
    return found


def main() -> int:
    """Check the stages, and print a line for each."""
    parser = argparse.ArgumentParser(description="Stages on two nodes of torchrun end as on one.")
    parser.add_argument("--only", default="", help="part of a stage's name")
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        (base / "inputs").mkdir()
        prepare(base / "inputs")
        for name, stage in stages(base / "inputs").items():
            if name in STAGES and options.only in name:
                found = check(name, stage, base)
                good &= all(found.values())
                said = ", ".join(f"{what} {'yes' if is_so else 'NO'}" for what, is_so in found.items())
                sys.stdout.write(f"{name:16} {said}\n")
                sys.stdout.flush()
    return not good


if __name__ == "__main__":
    sys.exit(main())
