"""Processes that have imported everything when they begin: forks of a server, which imports once for all of a session.

Nothing else of this process reaches them, as in a fresh one: neither its state nor the hooks of the tests.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing

ROOT = Path(__file__).parent.parent.parent
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


def started(*words: object, output: Path = Path(os.devnull)) -> ForkServerProcess:
    """`lightning …` as a process of its own, with a file for what it writes."""
    arguments = (dict(os.environ), main_into, output, [str(word) for word in words])
    process = server().Process(target=begin, args=arguments)
    with importing_tests():
        process.start()
    return process


@contextmanager
def importing_tests() -> Iterator[None]:
    """The project's root on the import path, which a process hands on: a stage of this process may have left it out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        yield


def main_into(output: Path, words: list[str]) -> None:
    """The command line, with its code as the process's; it may begin processes by `ddp_spawn`."""
    from probe.cli.main import main

    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # of a fresh process, which a server need not have
    torch.multiprocessing.start_processes = start_quickly
    sys.exit(main(words))


START = torch.multiprocessing.start_processes


def start_quickly(function: Any, args: Any, start_method: str, **options: Any) -> Any:
    """In place of PyTorch's function: processes of the server."""
    assert start_method == "spawn"
    server()
    with importing_tests():
        return START(begin_ranked, args=(dict(os.environ), function, *args), start_method="forkserver", **options)


@pytest.fixture
def quick_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ddp_spawn` takes its processes from the server; all else of its launch is unchanged."""
    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_quickly)


def begin_ranked(number: int, environment: dict[str, str], function: Callable[..., Any], *args: Any) -> None:
    """`begin`, with a process's number as the function's first argument."""
    begin(environment, function, number, *args)
