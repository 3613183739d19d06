"""`python -m tests.benchmarks.open_store [N]`: seconds to open a store of many shards, hashed or remembered."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from datamodules import ScoreRows
from extract.store import ScoreStore
from tests.helpers.stores import make_store


def seconds(action: Callable[[], object]) -> float:
    """Wall time of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(folder: Path, shards: int) -> dict[str, float]:
    """Seconds to open a new store in a folder: the first and second time, by force, and its rows for training."""
    os.environ["RETRIEVAL_HEADS_CACHE"] = str(folder / "cache")
    with patch("os.fsync"):  # which takes minutes for so many files
        make_store(folder / "store", samples=shards, shards=shards)
    time.sleep(3)  # shards that changed in the last two seconds are not remembered
    return {
        "open, first time": seconds(lambda: ScoreStore(folder / "store")),
        "open, second time": seconds(lambda: ScoreStore(folder / "store")),
        "open, --verify": seconds(lambda: ScoreStore(folder / "store", verify="always")),
        "open, verify: false": seconds(lambda: ScoreStore(folder / "store", verify=False)),
        "ScoreRows.setup, verified": seconds(lambda: ScoreRows(str(folder / "store")).setup("fit")),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
        for name, value in measure(Path(temporary), count).items():
            print(f"{count:,} batches, {2 * count:,} shards: {name:<26} {value:6.2f} s")
