"""`python -m tests.benchmarks.bench_stores`: large stores, validation and CCA fits; a part of `make bench`."""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from datamodules import Pass
from extract.store import ScoreStore
from probe.experiments.correlation import CCASettings, HeldOutCCA, JointMoments, StepwiseCCA
from probe.metrics import BinnedDecisions, RankedDecisions
from probe.models.losses import asymmetric_loss
from probe.models.mlp import MLP
from probe.models.ridge import ALPHAS, _solutions
from tests.benchmarks import large_store
from tests.benchmarks.bench import Result, bound, pair, run_alone, timed
from tests.benchmarks.open_store import measure as open_times
from tests.helpers.stores import make_store


def steps_of_a_sample(folder: Path) -> list[Result]:
    """Time of `store.steps(n)` in a store of 5,000 shards against one of 100."""
    medians = {}
    for shards in (100, 5_000):
        with patch("os.fsync"):
            store = ScoreStore(make_store(folder / f"steps-{shards}", samples=shards, shards=shards), verify=False)
        store.steps(0)
        medians[shards] = statistics.median(
            timed(partial(store.steps, number)) for number in range(0, shards, shards // 50)
        )
    detail = " against ".join(f"{medians[shards] * 1e3:.2f} ms" for shards in (5_000, 100))
    return [bound("steps(n): 5,000 shards / 100 shards", medians[5_000] / medians[100], "<=", 1.5, detail)]


def opening(folder: Path) -> list[Result]:
    """Opening a store of 5,000 batches, 10,000 shards, that was verified before."""
    times = open_times(folder, 5_000)
    second, forced = times["open, second time"][0], times["open, --verify"][0]
    return [
        bound("opening 10,000 verified shards, s", second, "<=", 1.0, f"{forced:.2f} s where all are hashed"),
        bound("opening them / hashing all", second / forced, None, None, "small shards"),
    ]


def shuffled_training(folder: Path, rows: int = 60_000) -> list[Result]:
    """Shuffled training rows from the disk against the same from memory (see `large_store`)."""
    with patch("os.fsync"):
        found = large_store.measure(large_store.write_store(folder / "large", rows), turns=3, limit=8.0)
    one = found["with training steps"]
    detail = f"{one['disk']:.0f} against {one['memory']:.0f} rows/s"
    return [bound("shuffled training, from the disk / from memory", one["disk / memory"], ">=", 0.8, detail)]


def _moments(hidden: int, heads: int, rows: int, seed: int, permuted: bool = False) -> JointMoments:
    """Moments of related rows with one-hot step numbers; the mixing of hidden states is the same for all."""
    mixing = np.random.default_rng(0).normal(size=(hidden, hidden)) / np.sqrt(np.arange(1, hidden + 1))[:, None]
    rng, one_hot = np.random.default_rng(seed), np.eye(32)
    x, step = rng.normal(size=(rows, hidden)) @ mixing, rng.integers(0, 32, rows)
    y = (x[:, :heads] / x[:, :heads].std(0) + rng.normal(size=(rows, heads)) > 1).astype(float)
    y = y[rng.permutation(rows)] if permuted else y
    return JointMoments.of(np.hstack([x, one_hot[step]]), np.hstack([y, one_hot[step]]))


def fits(hidden: int = 384, heads: int = 180) -> list[Result]:
    """The fits of one offset as `configs/correlation.yaml` has them, nulls with own and shared components."""
    whole, evaluation = _moments(hidden, heads, 4 * hidden, 1), _moments(hidden, heads, hidden, 2)
    null = _moments(hidden, heads, 4 * hidden, 1, permuted=True)
    groups = [
        (_moments(hidden, heads, hidden // 2, seed), _moments(hidden, heads, hidden // 8, seed)) for seed in (3, 4)
    ]

    def run(nulls: int = 10, left_out: int = 10) -> HeldOutCCA:
        cca = HeldOutCCA(StepwiseCCA(hidden, heads, CCASettings()))
        for part, moments in (("train", whole), ("evaluation", evaluation)):
            cca.add(Pass(part), [moments])  # type: ignore[arg-type]
        for repeat in range(nulls):
            cca.add(Pass("train", null="step", repeat=repeat), [null])
        for group in range(left_out):
            train, held_out = groups[group % 2]
            cca.add(Pass("train", group=group), [train])
            cca.add(Pass("evaluation", group=group), [held_out])
        return cca

    def alone(action: Callable[[], HeldOutCCA]) -> Callable[[], object]:
        def without_sharing() -> object:
            with patch.object(StepwiseCCA, "same_hidden", lambda *_: False):
                return action()

        return without_sharing

    results = []
    for name, action in (("nulls", lambda: run(left_out=0)), ("nulls and groups", run)):
        shared, own, ratio = pair(action, alone(action), repeats=2)
        detail = f"{shared:.2f} against {own:.2f} s, {hidden} + {heads} columns"
        results.append(bound(f"CCA fits of {name}, own hidden components / shared", ratio, None, None, detail))
    return results


def ridge(width: int = 1024, heads: int = 256) -> list[Result]:
    """Five strengths by five Cholesky factorisations, as `fit_ridge` has them, and by one eigendecomposition."""
    x = np.random.default_rng(0).normal(size=(2 * width, width))
    products, targets = x.T @ x, x.T @ np.random.default_rng(1).random((2 * width, heads))
    strengths = [alpha * len(x) for alpha in ALPHAS]

    def decomposed() -> None:
        values, vectors = np.linalg.eigh(products)
        turned = vectors.T @ targets
        for strength in strengths:
            vectors @ (turned / (values + strength)[:, None])

    ours, theirs, ratio = pair(lambda: _solutions(products, targets, strengths), decomposed, repeats=5)
    detail = f"{theirs:.2f} against {ours:.2f} s, {width} columns, {heads} heads"
    return [bound("ridge for 5 strengths, one decomposition / five factorisations", ratio, None, None, detail)]


def validation(rows: int = 10_000, heads: int = 1024) -> list[Result]:
    """Exact and binned validation metrics of the classifier, and their share of an epoch with the paper's MLP."""
    logits = torch.randn(rows, heads, generator=torch.Generator().manual_seed(0)) * 2 - 4
    labels = torch.rand(rows, heads, generator=torch.Generator().manual_seed(1)) < torch.sigmoid(1.2 * logits)
    scores, sample, found = torch.sigmoid(logits), torch.arange(rows) // 40, {}

    def exact() -> None:
        decisions = RankedDecisions(scores, labels, sample)
        threshold = decisions.best_threshold()
        found["exact"] = (threshold, decisions.metrics(threshold))

    def binned() -> None:
        decisions = BinnedDecisions(heads)
        for begin in range(0, rows, 128):
            decisions.update(scores[begin : begin + 128], labels[begin : begin + 128])
        curve = decisions.curve()
        threshold = curve.best_threshold()
        found["binned"] = (threshold, curve.metrics(threshold))

    short, long, ratio = pair(binned, exact, repeats=3)
    gaps = {name: abs(getattr(found["exact"][1], name) - getattr(found["binned"][1], name)) for name in ("f1", "auprc")}
    detail = f"{long:.2f} against {short:.2f} s; difference of F1 {gaps['f1']:.1e}, of AUPRC {gaps['auprc']:.1e}"
    epoch, forward = _epoch(logits[:128], labels[:128].float(), 4096, rows)
    size = f"{rows:,} rows × {heads:,} heads after {rows * 7 // 2:,} training rows"
    return [
        bound("validation metrics, exact / binned", ratio, None, None, detail),
        bound(f"validation metrics / epoch, {size}", long / epoch, "<=", 0.1, f"{long:.1f} of {epoch:.0f} s"),
        bound("the same with the forward pass", (long + forward) / epoch, "<=", 0.1, f"forward pass {forward:.0f} s"),
    ]


def _epoch(logits: torch.Tensor, labels: torch.Tensor, width: int, rows: int) -> tuple[float, float]:
    """Seconds of an epoch of 3.5 times the rows, and of a forward pass over the rows, from a few batches of 128."""
    net = MLP(width, (8192, 4096, 4096), logits.shape[1], 0.1, "relu")
    optimizer, hidden = torch.optim.Adam(net.parameters(), fused=True), torch.randn(len(logits), width)

    def step() -> None:
        loss = asymmetric_loss(net(hidden), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    trained = statistics.median([timed(step) for _ in range(3)])
    with torch.inference_mode():
        seconds = statistics.median([timed(lambda: net.eval()(hidden)) for _ in range(3)])
    return trained * rows * 3.5 / len(logits), seconds * rows / len(logits)


def measurements(folder: Path) -> list[Callable[[], list[Result]]]:
    """All of them, for `make bench`."""
    return [
        lambda: steps_of_a_sample(folder),
        lambda: opening(folder / "open"),
        fits,
        ridge,
        validation,
        lambda: shuffled_training(folder),
    ]


if __name__ == "__main__":
    run_alone(measurements)
