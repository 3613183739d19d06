"""A short form of `python -m tests.benchmarks.fuzz`: random input never gives a traceback."""

from pathlib import Path

import pytest

from tests.benchmarks.fuzz import GROUPS, fuzz


@pytest.mark.filterwarnings("ignore")
def test_random_input_is_refused_in_one_line_or_runs(tmp_path: Path) -> None:
    done = fuzz(tmp_path, examples=6, groups=list(GROUPS), derandomize=True)
    assert done.codes.total() >= 6 * len(GROUPS)
    assert not done.failures, "\n".join(done.failures.values())
