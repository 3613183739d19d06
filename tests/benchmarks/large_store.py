"""`python -m tests.benchmarks.large_store [ROWS] [FOLDER]`: shuffled training from a store that no page cache keeps.

Before each batch all pages of the store are given back to the kernel, off the clock, so that each row comes from the
disk. Such epochs take turns with epochs whose pages stay in memory.
"""

import ctypes
import json
import mmap
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from lightning import Trainer

from datamodules import RowBatches, Rows, ScoreRows
from extract.llm import LLMIdentity
from extract.store import FORMAT, TABLES, content_record, vector_column, write_manifest, write_shard
from probe.models.losses import asymmetric_loss
from probe.models.mlp import MLP

HIDDEN, LAYERS, HEADS, LENGTH, SHARD = 4096, 32, 32, 32, 2048
WIDTHS = (1024, 512, 512)
"""Of the trained MLP: the demo's, whose step is short, so that reading counts."""


def write_store(path: Path, rows: int) -> Path:
    """A store of random rows of the paper's width: 4,096 hidden values, 1,024 heads."""
    rng, entries = np.random.default_rng(0), []
    for table in TABLES:
        (path / table).mkdir(parents=True)
    for number in range(rows // SHARD):
        members = np.arange(SHARD // LENGTH) + number * (SHARD // LENGTH)
        heads = rng.random((SHARD, LAYERS * HEADS), dtype=np.float32)
        steps = {
            "sample": pa.array(np.repeat(members, LENGTH)),
            "step": pa.array(np.tile(np.arange(LENGTH, dtype=np.int32), len(members))),
            "token": pa.array(np.zeros(SHARD, np.int32)),
            "hidden": vector_column(rng.standard_normal((SHARD, HIDDEN), dtype=np.float32)),
            "copy_paste": vector_column((heads > 0.99).astype(np.uint8)),
            "reasoning": vector_column(heads),
        }
        samples = {"sample": pa.array(members), "id": pa.array([f"random:{one}" for one in members])}
        name = f"{number:06d}.arrow"
        tables = {"samples": pa.table(samples), "steps": pa.table(steps)}
        entries.append(
            {"batch": number, **{table: write_shard(path / table / name, tables[table]) for table in TABLES}}
        )
    llm = LLMIdentity("random", "sha256:" + "0" * 64, LAYERS, HEADS, HIDDEN, "float32")
    header = {"format": FORMAT, "complete": True, "command": "none", "llm": llm.as_dict(), "task": {"class": "none"}}
    write_manifest(path, {**header, "sink": 4, "local": 64, "shards": entries, **content_record(entries)})
    return path


class Evictor:
    """Gives the pages of a store's memory maps back to the kernel, which drops them from its cache."""

    def __init__(self, data: ScoreRows) -> None:
        columns = data.batches("train").columns
        arrays = [array for column in (columns.hidden, columns.scores) for array in column.arrays]
        self.ranges = [(array.ctypes.data, array.nbytes) for array in arrays]
        self.files = [os.open(file, os.O_RDONLY) for file in sorted((data.store.path / "steps").glob("*.arrow"))]
        self.libc = ctypes.CDLL(None)

    def everything(self) -> None:
        """Unmap all pages (they are read again when they are touched), then drop them."""
        for address, size in self.ranges:
            first = address // mmap.PAGESIZE * mmap.PAGESIZE
            length = -(-(address + size - first) // mmap.PAGESIZE) * mmap.PAGESIZE
            self.libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
        for file in self.files:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


class Training:
    """Steps of the demo's MLP with fused Adam, or none."""

    def __init__(self, steps: bool) -> None:
        self.net = MLP(HIDDEN, WIDTHS, LAYERS * HEADS, dropout=0.1, activation="relu") if steps else None
        self.optimizer = torch.optim.Adam(self.net.parameters(), fused=True) if self.net else None

    def step(self, batch: Rows) -> None:
        """One optimisation step on a batch."""
        if self.net is None or self.optimizer is None:
            return
        loss = asymmetric_loss(self.net(batch.hidden), batch.scores)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def epoch(loader: Any, training: Training, limit: float, evictor: Evictor | None) -> float:
    """Rows a second of an epoch, or of as much of it as fits into the limit of seconds."""
    rows, seconds, batches = 0, 0.0, iter(loader)
    while seconds < limit:
        if evictor is not None:
            evictor.everything()
        begun = time.perf_counter()
        if (batch := next(batches, None)) is None:
            break
        training.step(batch)
        seconds += time.perf_counter() - begun
        rows += len(batch.hidden)
    return rows / seconds


def measure(store: Path, turns: int, limit: float) -> dict[str, Any]:
    """Rows a second from memory and from the disk, in turns."""
    data = ScoreRows(str(store), verify=False)
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data.setup("fit")
    evictor, found = Evictor(data), dict[str, Any]()
    kinds = {"memory": False, "disk": True}
    for name, steps in (("reader alone", False), ("with training steps", True)):
        training, rates = Training(steps), {kind: list[float]() for kind in kinds}
        for turn in range(turns):
            for kind, cold in kinds.items():
                warm(data.batches("train"))
                loader = data.train_dataloader()
                loader.sampler.set_epoch(turn)  # type: ignore[attr-defined]
                rates[kind].append(epoch(loader, training, limit, evictor if cold else None))
        found[name] = {kind: round(statistics.median(rate), 1) for kind, rate in rates.items()}
        pairs = zip(rates["disk"], rates["memory"], strict=True)
        found[name]["disk / memory"] = round(statistics.median(cold / hot for cold, hot in pairs), 3)
    return found


def warm(batches: RowBatches) -> None:
    """Read every page once."""
    for array in (*batches.columns.hidden.arrays, *batches.columns.scores.arrays):
        array.reshape(-1).view(np.uint8)[::4096].max()


def main() -> None:
    """Write the store, measure, print JSON."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        with patch("os.fsync"):
            store = write_store(Path(folder) / "store", rows)
        os.sync()
        size = sum(file.stat().st_size for file in store.rglob("*.arrow"))
        found = {"rows": rows // SHARD * SHARD, "GiB": round(size / 2**30, 2), "torch_threads": torch.get_num_threads()}
        found |= measure(store, turns=3, limit=8.0)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
