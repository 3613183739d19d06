"""`python -m tests.benchmarks.bench_correlation [ROWS]`: one-pass moments beside NumPy's `X.T @ X`.

Rows of 4,096 + 1,024 float32 columns, in samples of 64 steps. The rows are a few random blocks over and over: what is
measured is the work on them, and a million rows at once would need 20 GB.
"""

import statistics
import sys
from collections.abc import Callable

import numpy as np
import torch

from probe.experiments.correlation.cca import CCASettings, canonical
from probe.experiments.correlation.moments import PairedMoments
from tests.benchmarks.bench import peak_memory, timed

HIDDEN, HEADS, BATCH, LENGTH = 4096, 1024, 4096, 64


def main() -> None:
    """Print rows a second, their ratio, and memory, for k = 0 and for k = 0…10."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    draw = torch.Generator().manual_seed(0)
    blocks = [torch.randn(BATCH, HIDDEN + HEADS, generator=draw) for _ in range(2)]
    sample = torch.arange(BATCH) // LENGTH
    print(f"{rows:,} rows, {torch.get_num_threads()} threads, torch {torch.__version__}, NumPy {np.__version__}")
    for offsets, batches in ((0, -(-rows // BATCH)), (10, max(5, rows // BATCH // 20))):
        with peak_memory() as peak:
            metric = PairedMoments(HIDDEN, HEADS, offsets)
            # A slice of both sides in one array, as wide rows would come: neither side pays for a copy.
            ours, plain = [], []
            for number in range(batches):
                block = blocks[number % len(blocks)]
                ours.append(timed(_update(metric, block, sample)))
                if number % 10 == 0:  # in turns, so that both meet the same noise
                    plain.append(timed(_square(block)))
            accumulated = peak()
            print(
                f"k = 0…{offsets}, {batches * BATCH:,} rows: {BATCH / statistics.median(ours):,.0f} rows/s, NumPy's "
                f"X.T @ X {BATCH / statistics.median(plain):,.0f} rows/s (median of {len(plain)} blocks); ratio "
                f"{statistics.median(plain) / statistics.median(ours):.2f}; peak {accumulated:.2f} GiB above the rows"
            )
            if offsets == 0:
                moments = metric.compute()[0]
                assert moments is not None
                seconds = timed(lambda: canonical(moments, CCASettings()))  # noqa: B023 (called at once)
                print(f"scaling, PCA and CCA from these moments: {seconds:.0f} s; peak with them {peak():.2f} GiB")


def _update(metric: PairedMoments, block: torch.Tensor, sample: torch.Tensor) -> Callable[[], None]:
    return lambda: metric.update(block[:, :HIDDEN], block[:, HIDDEN:], sample)


def _square(block: torch.Tensor) -> Callable[[], object]:
    rows = block.numpy()
    return lambda: rows.T @ rows


if __name__ == "__main__":
    main()
