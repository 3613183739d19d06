"""Regression and ranking metrics against scikit-learn and SciPy; the ridge baseline; the scatter plot."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score, r2_score

from datamodules import ScoreRows
from datamodules.columns import ShardedColumn
from extract.heads import HeadGrid
from probe.heads import training_means
from probe.metrics import REGRESSION_METRICS, RegressionSums, most_varying, ranking_metrics, top_overlap
from probe.models import plot_scatter
from probe.models.baselines import fit_baselines
from probe.models.ridge import ALPHAS, fit_ridge, ridge_map
from tests.helpers.stores import make_store

seeds = st.integers(0, 2**32 - 1)


def made(seed: int, rows: int = 24, heads: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions, true scores with some ties, and the samples they come from."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, heads)).round(1)
    return torch.from_numpy(rng.random((rows, heads))), torch.from_numpy(truth), torch.arange(rows) // 5


@given(seeds)
def test_metrics_equal_scikit_learn(seed: int) -> None:
    predicted, truth, sample = made(seed)
    mine = RegressionSums(predicted, truth, sample).metrics()
    y, x = truth.numpy(), predicted.numpy()
    assert mine["mse"] == pytest.approx(mean_squared_error(y, x))
    assert mine["mae"] == pytest.approx(mean_absolute_error(y, x))
    assert mine["r2_variance_weighted"] == pytest.approx(r2_score(y, x, multioutput="variance_weighted"))
    assert mine["r2_flattened"] == pytest.approx(r2_score(y.flatten(), x.flatten()))
    assert mine["ndcg"] == pytest.approx(ndcg_score(y, x, k=5))
    assert mine["rank_correlation"] == pytest.approx(np.mean([spearmanr(a, b)[0] for a, b in zip(y, x, strict=True)]))
    overlaps = [
        len({*np.argsort(-a, kind="stable")[:5]} & {*np.argsort(-b)[:5]}) / 5 for a, b in zip(y, x, strict=True)
    ]
    assert mine["top_overlap"] == pytest.approx(np.mean(overlaps))


@given(seeds)
def test_weights_count_samples_as_if_repeated(seed: int) -> None:
    predicted, truth, sample = made(seed)
    weights = np.random.default_rng(seed).integers(0, 3, size=5)
    weights[0] = 1
    rows = np.repeat(np.arange(24), weights[sample.numpy()])
    repeated = RegressionSums(predicted[rows], truth[rows], sample[rows]).metrics()
    assert RegressionSums(predicted, truth, sample).metrics(weights.astype(float)) == pytest.approx(repeated)


def test_missing_scores_are_left_out() -> None:
    predicted, truth, sample = made(0)
    truth[3] = np.nan
    truth[0, 0] = np.nan
    mine = RegressionSums(predicted, truth, sample).metrics()
    known = truth.isfinite().numpy()
    assert mine["mse"] == pytest.approx(mean_squared_error(truth[known], predicted[known]))
    whole = known.all(axis=1)
    assert mine["ndcg"] == pytest.approx(ndcg_score(truth[whole], predicted[whole], k=5))
    empty = RegressionSums(predicted, torch.full_like(truth, torch.nan), sample).metrics()
    assert all(math.isnan(value) for value in empty.values())


def test_a_perfect_prediction_and_its_interval() -> None:
    _, truth, sample = made(1)
    truth += torch.linspace(0, 0.01, truth.shape[1])  # no ties
    perfect = RegressionSums(truth, truth, sample)
    assert perfect.metrics() == pytest.approx(dict.fromkeys(REGRESSION_METRICS, 1.0) | {"mse": 0.0, "mae": 0.0})
    noisy = RegressionSums(made(1)[0], truth, sample)
    for name, (low, high) in noisy.evaluated(100, seed=0).intervals.items():
        assert low <= noisy.metrics()[name] <= high


@given(seeds, st.integers(1, 12))
def test_each_row_is_ranked_as_scikit_learn_and_scipy_rank_it(seed: int, top: int) -> None:
    predicted, truth, _ = made(seed, rows=6)
    truth[0] = 0.0
    truth[1, 2] = torch.nan
    found = ranking_metrics(predicted, truth, top)
    for row, (guess, true) in enumerate(zip(predicted.numpy(), truth.numpy(), strict=True)):
        if np.isnan(true).any():
            assert all(metric[row].isnan() for metric in found.values())
        elif np.ptp(true) == 0:
            assert found["ndcg"][row].isnan() == found["rank_correlation"][row].isnan() == torch.tensor(True)
        else:
            assert found["ndcg"][row].item() == pytest.approx(ndcg_score([true], [guess], k=top))
            assert found["rank_correlation"][row].item() == pytest.approx(spearmanr(true, guess).statistic)


def test_equal_scores_rank_by_number() -> None:
    assert top_overlap(torch.ones(1, 4), torch.tensor([[0.5, 0.4, 0.3, 0.2]]), 3).item() == 1
    flat = ranking_metrics(torch.ones(1, 4), torch.tensor([[0.1, 0.2, 0.3, 0.4]]), 2)
    assert flat["rank_correlation"].isnan().all()  # undefined for a constant prediction
    assert flat["top_overlap"].item() == 0


def test_ridge_is_scikit_learns_on_scaled_inputs_chosen_by_validation(tmp_path: Path) -> None:
    rows = ScoreRows(str(make_store(tmp_path / "toy", samples=60)), target="reasoning")
    rows.setup("fit")
    train, val, test = (rows.batches(part).read(rows.batches(part).rows) for part in ("train", "val", "test"))
    linear = fit_ridge(rows.batches("train"), rows.batches("val"))
    mean, scale = train.hidden.double().mean(0), train.hidden.double().std(0, correction=0)

    def scaled(part: torch.Tensor) -> np.ndarray:
        return ((part.double() - mean) / scale).numpy()

    errors, fits = [], []
    for alpha in ALPHAS:
        fits.append(
            Ridge(alpha=alpha * len(train.hidden), solver="svd").fit(scaled(train.hidden), train.scores.numpy())
        )
        errors.append(mean_squared_error(val.scores.numpy(), fits[-1].predict(scaled(val.hidden))))
    assert linear.alpha == ALPHAS[int(np.argmin(errors))]
    wanted = fits[int(np.argmin(errors))].predict(scaled(test.hidden))
    np.testing.assert_allclose(test.hidden @ linear.weight.T + linear.bias, wanted, atol=1e-4)
    few = fit_ridge(rows.batches("train"), rows.batches("val"), limit=20)
    assert not torch.allclose(few.weight, linear.weight)


@pytest.mark.parametrize(("rows", "columns"), [(9, 30), (30, 30), (200, 7)])
def test_ridge_of_few_and_many_rows_is_scikit_learns(rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    x, x_val = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)), rng.normal(size=(20, columns))
    y, y_val = x[:, :3] + 5 + rng.normal(size=(rows, 3)), rng.normal(size=(20, 3))
    x[:, -1] = 2.0  # a constant column
    found = ridge_map(x, y, x_val, y_val)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    wanted = Ridge(alpha=found.alpha * rows, solver="svd").fit((x - mean) / scale, y).predict((x_val - mean) / scale)
    np.testing.assert_allclose(found(torch.from_numpy(x_val).float()), wanted, atol=2e-3)


def test_baselines_and_static_heads_read_no_hidden_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ScoreRows(str(make_store(tmp_path / "toy")))
    rows.setup("fit")
    wanted = training_means(rows), fit_baselines(rows)[0].step.means

    def refuse(self: ShardedColumn, _: object) -> None:
        assert self.arrays[0].shape[1] != rows.hidden_size, "hidden states are read"

    take = ShardedColumn.take
    monkeypatch.setattr(ShardedColumn, "take", lambda self, at: refuse(self, at) or take(self, at))
    assert rows.num_heads != rows.hidden_size
    torch.testing.assert_close((training_means(rows), fit_baselines(rows)[0].step.means), wanted)


def test_head_means_are_those_of_the_training_rows(tmp_path: Path) -> None:
    rows = ScoreRows(str(make_store(tmp_path / "toy")), target="reasoning")
    rows.setup("fit")
    train = rows.batches("train").read(rows.batches("train").rows)
    torch.testing.assert_close(training_means(rows), train.scores.mean(0))


def test_the_scatter_names_the_heads_that_vary_most() -> None:
    _, truth, _ = made(0)
    truth[:, 4] *= 3
    truth[2, 1] = torch.nan
    assert most_varying(truth.numpy(), 1) == [4]
    figure = plot_scatter(made(0)[0], truth, HeadGrid(layers=3, heads=3))
    assert figure.axes[0].get_title().startswith("head 1-1, r = ")
