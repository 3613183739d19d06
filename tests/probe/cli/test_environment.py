"""Environment variables that the command sets for libraries, and what they are set for."""

import os
import subprocess
import sys

import pytest

from probe.cli.main import ENVIRONMENT, main

PRODUCTS = """
import psutil, torch
torch.set_num_threads(1)
weights = [torch.zeros(size, 64, dtype=torch.bfloat16) for size in (64, 128, 192)]
rows = torch.zeros(1000, 64, dtype=torch.bfloat16)
def memory_after(sizes):
    for size in sizes:
        for weight in weights:
            torch.nn.functional.linear(rows[:size], weight)
    return psutil.Process().memory_info().rss
first = memory_after(range(1, 100))
print(memory_after(range(100, 300)) - first)
"""


@pytest.mark.parametrize("name", ENVIRONMENT)
@pytest.mark.parametrize("stated", [None, "7"])
def test_a_variable_is_set_unless_the_user_has_set_it(
    name: str, stated: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, stated or "")
    if stated is None:
        monkeypatch.delenv(name)
    assert main([]) == 0
    assert os.environ[name] == (stated or ENVIRONMENT[name])


def test_memory_does_not_grow_with_every_shape_of_a_product() -> None:
    """Without the bounds 600 shapes in bfloat16 take hundreds of megabytes, where oneDNN computes them."""
    command = [sys.executable, "-c", PRODUCTS]
    run = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40 * 2**20
