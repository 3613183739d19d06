"""Baselines without the hidden state against loops over the store's rows, scikit-learn, and their saved form."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from datamodules import OffsetRows, ScoreRows
from extract.store import ScoreStore
from probe.metrics import best_threshold
from probe.models.baselines import Baselines, fit_baselines
from probe.models.ridge import ALPHAS
from tests.helpers.stores import make_store

Array = NDArray[Any]
CUT = {"copy_paste": 0.5, "reasoning": 0.6}
"""From these scores on a head is dynamic."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=60)


class Rows:
    """A store's rows of a part, for one offset: step numbers, scores k steps later, last known scores (NaN: none)."""

    def __init__(self, folder: Path, target: str, part: str, k: int) -> None:
        data = ScoreStore(folder)
        scores = np.concatenate(data.vectors(target)).astype(float)
        sample, step = data.scalars("sample"), data.scalars("step")
        order = np.random.default_rng(0).permutation(60)
        chosen = set({"train": order[:42], "val": order[42:54], "test": order[54:]}[part].tolist())
        rows = [n for n in range(len(sample) - k) if sample[n] in chosen and sample[n] == sample[n + k]]
        self.step = [int(step[n]) for n in rows]
        self.scores = [scores[n + k] for n in rows]
        none = np.full(scores.shape[1], np.nan)
        self.known = [scores[n] if k else (scores[n - 1] if step[n] else none) for n in rows]

    def mean(self, head: int, chosen: Callable[[int], bool]) -> tuple[float, int]:
        values = [row[head] for n, row in enumerate(self.scores) if chosen(n)]
        return (sum(values) / len(values) if values else 0.0), len(values)


def always(_: int) -> bool:
    """Every row."""
    return True


def slow(train: Rows, kind: str, step: int, known: Array, cut: float) -> list[float]:
    """A prediction of every head, from the training rows one by one."""
    found = []
    for head in range(len(known)):
        mean = train.mean(head, always)[0]
        missing = np.isnan(known[head])
        if kind == "repeat":
            found.append(mean if missing else known[head])
            continue
        alike: Callable[[int], bool] = always
        if kind == "transition" and not missing:
            active = known[head] >= cut

            def alike(n: int, head: int = head, active: bool = active) -> bool:
                before = train.known[n][head]
                return bool(not np.isnan(before) and (before >= cut) == active)

        overall = train.mean(head, alike)[0]
        at_step, count = train.mean(head, lambda n, alike=alike: train.step[n] == step and alike(n))
        found.append((at_step * count + overall) / (count + 1))
    return found


@pytest.mark.parametrize("target", ["copy_paste", "reasoning"])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_predictions_equal_loops_over_the_training_rows(store: Path, target: Any, k: int) -> None:
    data = OffsetRows(store=str(store), target=target, offsets=3)
    data.setup("fit")
    one = fit_baselines(data, CUT[target])[k]
    train, test = Rows(store, target, "train", k), Rows(store, target, "test", k)
    step, known = torch.tensor([*test.step, 50]), torch.from_numpy(np.array([*test.known, test.known[0]])).float()
    for kind in ("static", "step", "repeat", "transition"):
        predicted = one.predict(kind, step, known)
        if kind == "static":
            wanted = [[train.mean(head, always)[0] for head in range(6)]] * len(step)
        else:
            wanted = [slow(train, kind, int(n), row.numpy(), CUT[target]) for n, row in zip(step, known, strict=True)]
        np.testing.assert_allclose(predicted.numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("k", [0, 2])
def test_heads_is_scikit_learns_ridge_on_known_scores_and_one_hot_steps(store: Path, k: int) -> None:
    data = OffsetRows(store=str(store), target="reasoning", offsets=2)
    data.setup("fit")
    one = fit_baselines(data)[k]
    parts = {name: Rows(store, "reasoning", name, k) for name in ("train", "val", "test")}
    means = np.mean(parts["train"].scores, axis=0)
    last = max(parts["train"].step)

    def inputs(rows: Rows) -> Array:
        filled = [np.where(np.isnan(row), means, row) for row in rows.known]
        one_hot = [[float(step == n) for n in range(last + 1)] for step in rows.step]
        return np.hstack([filled, one_hot])

    x, x_val, x_test = (inputs(rows) for rows in parts.values())
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    fits = [
        Ridge(alpha=alpha * len(x), solver="svd").fit((x - mean) / scale, parts["train"].scores) for alpha in ALPHAS
    ]
    errors = [np.square(fit.predict((x_val - mean) / scale) - parts["val"].scores).mean() for fit in fits]
    wanted = fits[int(np.argmin(errors))].predict((x_test - mean) / scale)
    known = torch.from_numpy(np.array(parts["test"].known)).float()
    predicted = one.predict("heads", torch.tensor(parts["test"].step), known)
    np.testing.assert_allclose(predicted.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("offset", [0, 2])
def test_a_single_offset_has_the_baselines_of_that_one_among_many(store: Path, offset: int) -> None:
    single, many = ScoreRows(str(store), offset=offset), OffsetRows(store=str(store), offsets=2)
    for data in (single, many):
        data.setup("fit")
    (one,), others = fit_baselines(single), fit_baselines(many)
    batches = single.batches("test")
    rows = batches.read(batches.rows)
    for kind in one.kinds:
        alone, beside = (found.predict(kind, rows.step, rows.known) for found in (one, others[offset]))
        torch.testing.assert_close(alone, beside)
    assert one.thresholds == pytest.approx(others[offset].thresholds)


def test_thresholds_are_chosen_on_the_validation_rows_alone(store: Path) -> None:
    data = ScoreRows(str(store), offset=1)
    data.setup("fit")
    (one,) = fit_baselines(data)
    rows = Rows(store, "copy_paste", "val", 1)
    step, known = torch.tensor(rows.step), torch.from_numpy(np.array(rows.known)).float()
    labels = torch.from_numpy(np.array(rows.scores)) > 0
    for kind in ("static", "step", "transition", "heads"):
        assert one.thresholds[kind] == pytest.approx(best_threshold(one.predict(kind, step, known), labels))
    assert one.thresholds["repeat"] == 0.5
    reasoning = ScoreRows(str(store), target="reasoning")
    reasoning.setup("fit")
    assert fit_baselines(reasoning)[0].thresholds == {}


def test_they_are_saved_in_plain_values(store: Path) -> None:
    data = ScoreRows(str(store))
    data.setup("fit")
    (one,) = fit_baselines(data)
    file = io.BytesIO()
    torch.save([one.as_dict()], file)
    file.seek(0)
    (again,) = (Baselines.from_dict(values) for values in torch.load(file, weights_only=True))
    rows = data.batches("test").read(data.batches("test").rows)
    for kind in one.kinds:
        assert torch.equal(one.predict(kind, rows.step, rows.known), again.predict(kind, rows.step, rows.known))
    assert again.thresholds == one.thresholds
