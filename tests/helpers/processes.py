"""Processes that have imported everything when they begin: forks of a server, which imports once for all of a session.

Nothing else of this process reaches them, as in a fresh one: neither its state nor the hooks of the tests.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing

PRELOADED = [
    "lightning.pytorch",
    "transformers.models.llama.modeling_llama",
    "probe.cli.lightning_cli",
    "probe.rag",
    "extract.pipeline",
]


def server() -> multiprocessing.context.ForkServerContext:
    """Multiprocessing by that server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)  # of no effect once it runs
    return context


def begin(environment: dict[str, str], function: Callable[..., Any], *args: Any) -> None:
    """Call a function as a process that was just started does: the server's environment may be an old one."""
    os.environ.clear()
    os.environ.update(environment)
    function(*args)


def started(*words: object) -> ForkServerProcess:
    """`lightning …` as a process of its own, without output."""
    process = server().Process(target=begin, args=(dict(os.environ), silent_main, [str(word) for word in words]))
    process.start()
    return process


def silent_main(words: list[str]) -> None:
    """The command line, with its code as the process's."""
    from probe.cli.main import main

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.exit(main(words))


@pytest.fixture
def quick_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ddp_spawn` takes its processes from the server; all else of its launch is unchanged."""
    start = torch.multiprocessing.start_processes

    def start_processes(function: Any, args: Any, start_method: str, **options: Any) -> Any:
        assert start_method == "spawn"
        server()
        args = (dict(os.environ), function, *args)
        return start(begin_ranked, args=args, start_method="forkserver", **options)

    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_processes)


def begin_ranked(number: int, environment: dict[str, str], function: Callable[..., Any], *args: Any) -> None:
    """`begin`, with a process's number as the function's first argument."""
    begin(environment, function, number, *args)
