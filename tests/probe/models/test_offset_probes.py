"""Probes of later steps: their rows, their training beside that of single probes, their metrics and refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score

from datamodules import OffsetRows, ScoreRows
from extract.store import ScoreStore
from probe.models.offset_probes import OffsetProbes
from tests.conftest import Run
from tests.helpers.stores import make_store

Stage = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=100)


@pytest.fixture
def stage(run: Run, store: Path, tmp_path: Path) -> Stage:
    """A stage of a shipped config, made small, writing below `tmp_path`."""

    def call(name: str, config: str, *args: object) -> tuple[int, str]:
        out = tmp_path / config
        best = {"dirpath": str(out), "filename": "best", "monitor": "val/loss"}
        report = (
            [{"class_path": "probe.Artifacts", "init_args": {"folder": str(out)}}] if config == "offset_probes" else []
        )
        callbacks = [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": best}, *report]
        return run(
            *(name, "-c", f"configs/{config}.yaml", "-c", "tests/configs/tiny_probe.yaml", "--store", store),
            *("--trainer.callbacks", json.dumps(callbacks), "--trainer.default_root_dir", out),
            *("--trainer.logger.init_args.save_dir", out, *args),
        )

    return call


@pytest.mark.parametrize("target", ["copy_paste", "reasoning"])
def test_scores_of_later_steps_are_those_of_single_offsets(store: Path, target: Any) -> None:
    many = OffsetRows(store=str(store), target=target, offsets=4, batch_size=50)
    many.setup("fit")
    for k in range(5):
        one = ScoreRows(str(store), target, offset=k, batch_size=1000)
        one.setup("fit")
        for split in ("train", "val", "test"):
            batches: Any = many.batches(split)
            read = [batches.batch(number) for number in range(len(batches))]
            scores = torch.cat([rows.scores for rows in read])
            hidden = torch.cat([rows.hidden for rows in read])
            known = scores[:, k].isfinite().all(dim=1)
            if split == "train":  # shuffled
                assert int(known.sum()) == len(one.batches(split).rows)
                continue
            wanted = one.batches(split).batch(0)
            assert torch.equal(scores[known, k], wanted.scores)
            assert torch.equal(hidden[known], wanted.hidden)


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize(("config", "target"), [("probe", "copy_paste"), ("regressor", "reasoning")])
def test_alone_it_trains_as_the_single_probe_does(stage: Stage, tmp_path: Path, config: str, target: str) -> None:
    assert stage("fit", config)[0] == 0
    assert stage("fit", "offset_probes", "--data.init_args.offsets", 0, "--data.init_args.target", target)[0] == 0
    single, beside = weights(tmp_path / config / "best.ckpt"), weights(tmp_path / "offset_probes" / "best.ckpt")
    for name in ("mlp.layers.0.weight", "mlp.layers.3.bias"):
        torch.testing.assert_close(beside[f"probes.0.{name}"], single[name])
    if config == "probe":
        assert beside["probes.0.threshold"] == single["threshold"]
        assert beside["static_thresholds"][0] == single["static_threshold"]


def test_each_gradient_is_clipped_on_its_own() -> None:
    probes = OffsetProbes(4, 3, num_offsets=1, hidden=[5])
    for scale, probe in zip((100.0, 0.001), probes.probes, strict=True):
        for parameter in probe.parameters():
            parameter.grad = torch.full_like(parameter, scale)
    probes.configure_gradient_clipping(None)
    norms = [torch.cat([p.grad.flatten() for p in probe.parameters()]).norm() for probe in probes.probes]  # type: ignore[union-attr]
    assert norms[0] == pytest.approx(1.0, rel=1e-4)
    assert norms[1] == pytest.approx(0.001 * np.sqrt(4 * 5 + 5 + 5 * 3 + 3), rel=1e-4)


def held_out(store: Path, column: str, k: int) -> tuple[Any, Any]:
    """Scores of now and of k steps later on the test samples, row by row."""
    data = ScoreStore(store)
    scores, sample = np.concatenate(data.vectors(column)), data.scalars("sample")
    test = set(np.random.default_rng(0).permutation(100)[90:].tolist())
    rows = [n for n in range(len(sample) - k) if sample[n] in test and sample[n] == sample[n + k]]
    return scores[rows], scores[[n + k for n in rows]]


def test_metrics_and_baselines_equal_scikit_learn(stage: Stage, store: Path, tmp_path: Path) -> None:
    args = ("--data.init_args.offsets", 2, "--model.init_args.resamples", 20)
    assert stage("fit", "offset_probes", *args)[0] == 0
    code, said = stage("test", "offset_probes", *args, "--ckpt_path", tmp_path / "offset_probes" / "best.ckpt")
    assert code == 0, said
    found = json.loads((tmp_path / "offset_probes" / "results.json").read_text())["offsets"]
    assert "repeat" not in found[0]
    for k in (1, 2):
        now, later = held_out(store, "copy_paste", k)
        assert found[k]["rows"] == len(now)
        cell = found[k]["repeat"]["f1"]
        assert cell["value"] == pytest.approx(f1_score(later.ravel(), now.ravel()))
        assert cell["low"] <= cell["value"] <= cell["high"]
    assert found[0]["probe"]["f1"]["value"] > found[0]["static"]["f1"]["value"]
    assert (tmp_path / "offset_probes" / "probes_over_offsets.png").is_file()


def test_regressors_are_evaluated_by_r2(stage: Stage, store: Path, tmp_path: Path) -> None:
    args = ("--data.init_args.offsets", 1, "--model.init_args.resamples", 20, "--data.init_args.target", "reasoning")
    assert stage("fit", "offset_probes", *args)[0] == 0
    assert stage("test", "offset_probes", *args, "--ckpt_path", tmp_path / "offset_probes" / "best.ckpt")[0] == 0
    found = json.loads((tmp_path / "offset_probes" / "results.json").read_text())["offsets"]
    now, later = held_out(store, "reasoning", 1)
    wanted = r2_score(later, now, multioutput="variance_weighted")
    assert found[1]["repeat"]["r2_variance_weighted"]["value"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "datamodules.ScoreRows"), "datamodules.OffsetRows"),
        (("--data.init_args.offsets", 8), "no row of the"),
        (("--data.init_args.offsets", -1), "data.init_args.offsets: at least 0, not -1"),
        (("--data.init_args.offset", 1), "did you mean 'offsets'"),
    ],
)
def test_bad_settings_get_one_line(stage: Stage, args: tuple[object, ...], message: str) -> None:
    code, said = stage("fit", "offset_probes", *args)
    assert code == 2
    assert said.count("\n") == 1
    assert message in said
