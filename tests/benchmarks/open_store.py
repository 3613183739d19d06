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


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of an action."""
    start, worked = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - worked


def measure(folder: Path, batches: int) -> dict[str, tuple[float, float]]:
    """Seconds to open a new store in a folder: the first and second time, by force, and its rows for training."""
    os.environ["RETRIEVAL_HEADS_CACHE"] = str(folder / "cache")
    store = folder / "store"
    with patch("os.fsync"):  # which takes minutes for so many files
        make_store(store, samples=batches, shards=batches)
    time.sleep(3)  # shards that changed in the last two seconds are not remembered
    return {
        "open, first time": seconds(lambda: ScoreStore(store)),
        "open, second time": seconds(lambda: ScoreStore(store)),
        "open, --verify": seconds(lambda: ScoreStore(store, verify="always")),
        "open, verify: false": seconds(lambda: ScoreStore(store, verify=False)),
        "ScoreRows.setup, verified": seconds(lambda: ScoreRows(str(store)).setup("fit")),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
        for name, (wall, worked) in measure(Path(temporary), count).items():
            print(
                f"{count:,} batches, {2 * count:,} shards: {name:<26} {wall:6.2f} s, {worked:6.2f} s of processor time"
            )
