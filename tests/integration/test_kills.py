"""The short form of `python -m tests.benchmarks.kills`: each stage's long one runs apart from the suite."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_stages_that_are_killed_end_as_if_unbroken() -> None:
    """Training, interrupted once at a random moment; in an interpreter of its own, as each run is a fork."""
    words = ("-m", "tests.benchmarks.kills", "--series", "3", "--interruptions", "1", "--only", "fit")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
