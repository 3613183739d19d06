"""Probes of later steps: their rows, their training beside that of single probes, their metrics and refusals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from sklearn.metrics import average_precision_score, f1_score, r2_score

from datamodules import OffsetRows, Rows, ScoreRows
from extract.store import ScoreStore
from probe.metrics import best_threshold
from probe.models import Baselines, OffsetProbes, read_checkpoint
from probe.results import PREDICTORS
from tests.conftest import Run
from tests.helpers.stores import make_store

Stage = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=100, contribution=True)


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


@pytest.mark.parametrize("target", ["copy_paste", "reasoning", "contribution"])
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
    assert set(found[0]) == {"k", "rows", "differences", *PREDICTORS}
    for k in (1, 2):
        now, later = held_out(store, "copy_paste", k)
        assert found[k]["rows"] == len(now)
        cell = found[k]["repeat"]["f1"]
        assert cell["value"] == pytest.approx(f1_score(later.ravel(), now.ravel()))
        assert cell["low"] <= cell["value"] <= cell["high"]
        assert found[k]["differences"]["repeat"]["f1"]["value"] == pytest.approx(
            found[k]["probe"]["f1"]["value"] - cell["value"]
        )
    assert found[0]["probe"]["f1"]["value"] > found[0]["static"]["f1"]["value"]
    assert (tmp_path / "offset_probes" / "probes_over_offsets.png").is_file()


def test_at_offset_0_the_step_before_is_repeated(stage: Stage, store: Path, tmp_path: Path) -> None:
    """A first step has none before it: there each head has its training mean."""
    args = ("--data.init_args.offsets", 0, "--model.init_args.resamples", 0, "--data.init_args.target", "reasoning")
    assert stage("fit", "offset_probes", *args)[0] == 0
    assert stage("test", "offset_probes", *args, "--ckpt_path", tmp_path / "offset_probes" / "best.ckpt")[0] == 0
    (found,) = json.loads((tmp_path / "offset_probes" / "results.json").read_text())["offsets"]
    data = ScoreStore(store)
    scores, sample = np.concatenate(data.vectors("reasoning")), data.scalars("sample")
    order = np.random.default_rng(0).permutation(100).tolist()
    train, test = set(order[:70]), set(order[90:])
    means = scores[[number in train for number in sample]].mean(axis=0)
    rows = [n for n in range(len(sample)) if sample[n] in test]
    before = [scores[n - 1] if n and sample[n - 1] == sample[n] else means for n in rows]
    wanted = r2_score(scores[rows], before, multioutput="variance_weighted")
    assert found["repeat"]["r2_variance_weighted"]["value"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*", "ignore:The number of training batches")
def test_a_fit_that_stopped_before_its_first_validation_goes_on(store: Path, tmp_path: Path) -> None:
    def fit(steps: int, resumed: Path | None) -> dict[int, dict[str, float]]:
        data = OffsetRows(store=str(store), offsets=2)
        probes = OffsetProbes(data.hidden_size, data.num_heads, num_offsets=2, hidden=[8])
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(probes, data, ckpt_path=resumed, weights_only=True)
        trainer.save_checkpoint(tmp_path / "stopped.ckpt")
        found: dict[int, dict[str, float]] = read_checkpoint(tmp_path / "stopped.ckpt")["probe"]["wake_thresholds"]
        return found

    assert fit(1, None) == {}
    resumed = fit(100, tmp_path / "stopped.ckpt")
    assert {k: "probe" in thresholds for k, thresholds in resumed.items()} == {1: True, 2: True}


@pytest.mark.parametrize("target", ["copy_paste", "reasoning", "contribution"])
def test_heads_that_wake_up_are_evaluated_with_thresholds_of_the_validation_split(
    stage: Stage, store: Path, tmp_path: Path, target: Any
) -> None:
    args = ("--data.init_args.offsets", 3, "--model.init_args.resamples", 20, "--data.init_args.target", target)
    args = (*args, "--model.init_args.threshold", 0.6)
    checkpoint = tmp_path / "offset_probes" / "best.ckpt"
    assert stage("fit", "offset_probes", *args)[0] == 0
    code, said = stage("test", "offset_probes", *args, "--ckpt_path", checkpoint)
    assert code == 0, said
    found = json.loads((tmp_path / "offset_probes" / "results.json").read_text())["wake_ups"]
    assert [record["k"] for record in found] == [1, 2]  # of 1, 2, 4 and 8 those within 3
    data = OffsetRows(store=str(store), target=target, offsets=3)
    data.setup("test")
    val, test = (data.with_known(part, hidden=True).read(data.with_known(part).rows) for part in ("val", "test"))  # type: ignore[arg-type]
    predictors, cut = saved(checkpoint), 0.5 if target == "copy_paste" else 0.6
    for record in found:
        k = record["k"]
        for kind in PREDICTORS:
            chosen = decisions(val, k, predictors(kind, k, val), cut)
            values, truth = decisions(test, k, predictors(kind, k, test), cut)
            threshold = record["thresholds"][kind]
            assert threshold == pytest.approx(best_threshold(*(torch.tensor(side)[:, None] for side in chosen)))
            assert (record["pairs"], record["events"]) == (len(truth), sum(truth))
            predicted = np.array(values, dtype=np.float32) >= np.float32(threshold)
            assert record[kind]["f1"]["value"] == pytest.approx(f1_score(truth, predicted, zero_division=0), abs=2e-3)
            ranked = average_precision_score(truth, values)
            assert record[kind]["auprc"]["value"] == pytest.approx(ranked, abs=2e-3)
            assert record[kind]["auprc"]["low"] <= ranked <= record[kind]["auprc"]["high"]
            if kind != "probe":
                gap = record["differences"][kind]["auprc"]
                assert gap["value"] == pytest.approx(record["probe"]["auprc"]["value"] - record[kind]["auprc"]["value"])
                assert gap["low"] <= gap["value"] <= gap["high"]
    rows = list(csv.DictReader((tmp_path / "offset_probes" / "results.csv").read_text().splitlines()))
    assert {row["predicted"] for row in rows} == {"scores", "wake-ups"}
    assert (tmp_path / "offset_probes" / "wake_ups_over_offsets.png").is_file()


def saved(checkpoint: Path) -> Callable[[str, int, Rows], torch.Tensor]:
    """The predictions of a saved probe and its baselines, for heads k steps later."""
    content = torch.load(checkpoint, weights_only=True)
    probes = OffsetProbes(**{name: value for name, value in content["hyper_parameters"].items() if name[0] != "_"})
    probes.load_state_dict(content["state_dict"])
    baselines = [Baselines.from_dict(values) for values in content["probe"]["baselines"]]

    @torch.inference_mode()
    def predict(kind: str, k: int, rows: Rows) -> torch.Tensor:
        if kind == "probe":
            return probes.eval()(rows.hidden)[:, k]
        return baselines[k].predict(kind, rows.step, rows.scores[:, 0])

    return predict


def decisions(rows: Rows, k: int, predicted: torch.Tensor, cut: float) -> tuple[list[float], list[bool]]:
    """Prediction and truth of each head at each step from which it could wake up, one by one."""
    values, truth = [], []
    for row in range(len(predicted)):
        for head in range(predicted.shape[1]):
            now, then = (float(rows.scores[row, at, head]) for at in (0, k))
            if not np.isnan(then) and now < cut:
                values.append(float(predicted[row, head]))
                truth.append(then >= cut)
    return values, truth


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
        (("--data.init_args.offsets", 1, "--model.init_args.wake_offsets", "[0]"), "wake_offsets: at least 1, not 0"),
        (("--data.init_args.offsets", -1), "data.init_args.offsets: at least 0 and at most 1000, not -1"),
        (("--data.init_args.offset", 1), "did you mean 'offsets'"),
    ],
)
def test_bad_settings_get_one_line(stage: Stage, args: tuple[object, ...], message: str) -> None:
    code, said = stage("fit", "offset_probes", *args)
    assert code == 2
    assert said.count("\n") == 1
    assert message in said
