"""Probes through the command line: trained, evaluated, saved, loaded, refused."""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import probe
from datamodules import ScoreRows, Split
from extract.errors import UserError
from probe.heads import training_means
from probe.metrics import REGRESSION_METRICS
from probe.models import check_checkpoint, classifier
from probe.models.baselines import fit_baselines
from probe.results import BASELINES
from tests.conftest import ROOT, Run
from tests.helpers.stores import IDENTITY, make_store

Stage = Callable[..., tuple[int, str]]
REGRESSOR = ("-c", "tests/configs/regressor.yaml")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=100)


@pytest.fixture
def stage(run: Run, store: Path, tmp_path: Path) -> Stage:
    """`lightning fit` or `test` of the shipped probe config, made small, writing below `tmp_path`."""

    def call(name: str, *args: object, folder: str = "a") -> tuple[int, str]:
        out = tmp_path / folder
        callbacks = json.dumps(
            [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": str(out), "filename": "best", "monitor": "val/loss"},
                },
                {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
                {"class_path": "probe.Artifacts", "init_args": {"folder": str(out)}},
            ]
        )
        return run(
            name,
            *("-c", "configs/probe.yaml", "-c", "tests/configs/tiny_probe.yaml", "--store", store),
            *("--trainer.callbacks", callbacks, "--trainer.default_root_dir", out),
            *("--trainer.logger.init_args.save_dir", out, *args),
        )

    return call


def results(tmp_path: Path, folder: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / folder / "results.json").read_text())
    return found


def test_fit_and_test_twice_give_the_same_metrics(stage: Stage, tmp_path: Path, store: Path) -> None:
    for folder in ("a", "b"):
        assert stage("fit", folder=folder)[0] == 0
        assert stage("test", "--ckpt_path", tmp_path / folder / "best.ckpt", folder=folder)[0] == 0
    first, second = results(tmp_path, "a"), results(tmp_path, "b")
    assert first["probe"] == second["probe"]
    assert first["probe"]["f1"] > first["static"]["f1"]
    low, high = first["probe"]["intervals"]["f1"]
    assert low <= first["probe"]["f1"] <= high
    assert first["samples"] == 10
    assert first["llm"] == IDENTITY.as_dict()

    # the same metrics from the loaded checkpoint, by scikit-learn
    restored = probe.load(tmp_path / "a" / "best.ckpt")
    rows = ScoreRows(str(store))
    rows.setup("test")
    batches = rows.batches("test")
    batch = [batches.batch(i) for i in range(len(batches))]
    hidden, scores = torch.cat([b.hidden for b in batch]), torch.cat([b.scores for b in batch])
    with torch.inference_mode():
        predicted = restored.predict_scores(hidden)
        chosen = restored.predict_heads(hidden)  # type: ignore[operator]
    assert average_precision_score(scores.flatten(), predicted.flatten()) == pytest.approx(first["probe"]["auprc"])
    precision = float(scores[chosen].mean())
    assert precision == pytest.approx(first["probe"]["precision"])
    assert set(first["differences"]) == set(BASELINES) - {"ridge"}
    for kind, metrics in first["differences"].items():
        for name, gap in metrics.items():
            assert gap["value"] == pytest.approx(first["probe"][name] - first[kind][name])
            assert gap["low"] <= gap["value"] <= gap["high"]
    (one,) = fit_baselines(rows)
    with_known = rows.with_known("test").read(rows.with_known("test").rows)
    for kind in one.kinds:
        values = one.predict(kind, with_known.step, with_known.known)
        assert average_precision_score(scores.flatten(), values.flatten()) == pytest.approx(first[kind]["auprc"])
        f1 = f1_score(scores.flatten(), values.flatten() >= np.float32(first[kind]["threshold"]))
        assert f1 == pytest.approx(first[kind]["f1"])
    static = training_means(rows).expand(scores.shape)
    assert average_precision_score(scores.flatten(), static.flatten()) == pytest.approx(first["static"]["auprc"])


def test_validate_is_a_stage_and_needs_a_trained_probe(stage: Stage, tmp_path: Path) -> None:
    code, error = stage("validate")
    assert code == 2
    assert "this probe is untrained" in error
    assert stage("fit")[0] == 0
    assert stage("validate", "--ckpt_path", tmp_path / "a" / "best.ckpt")[0] == 0


def test_tensorboard_shows_losses_metrics_rate_curve_and_settings(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    (folder,) = (tmp_path / "a").glob("classifier/*/version_*")
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    wanted = {"train/loss_step", "train/loss_epoch", "val/loss", "val/f1", "val/auprc", "val/threshold", "lr-Adam"}
    assert wanted <= set(tags["scalars"])
    assert "val/precision_recall" in tags["tensors"]
    assert "gamma_neg: 4.0" in (folder / "hparams.yaml").read_text()
    assert "_hparams_/session_start_info" in events.summary_metadata
    losses = [event.value for event in events.Scalars("train/loss_epoch")]
    assert losses[-1] < losses[0]


def test_binned_validation_of_a_large_split_is_near_the_exact_one(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(folder: str) -> dict[str, float]:
        assert stage("fit", folder=folder)[0] == 0
        (place,) = (tmp_path / folder).glob("classifier/*/version_*")
        events = EventAccumulator(str(place))
        events.Reload()
        return {name: events.Scalars(f"val/{name}")[-1].value for name in ("loss", "threshold", "f1", "auprc")}

    exact = last("a")
    monkeypatch.setattr(classifier, "EXACT_PAIRS", 0)
    monkeypatch.setattr(classifier, "RankedDecisions", None)  # no pair is kept or sorted
    binned = last("b")
    assert binned["loss"] == pytest.approx(exact["loss"], rel=1e-5)
    assert binned["threshold"] == pytest.approx(exact["threshold"], abs=0.01)
    assert binned["threshold"] * 4096 == int(binned["threshold"] * 4096)
    assert (binned["f1"], binned["auprc"]) == pytest.approx((exact["f1"], exact["auprc"]), abs=0.01)
    first, second = (torch.load(tmp_path / one / "best.ckpt", weights_only=False)["state_dict"] for one in "ab")
    assert first["static_threshold"] == second["static_threshold"]


def test_a_damaged_checkpoint_is_refused_before_it_is_used(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    file = tmp_path / "a" / "best.ckpt"
    assert check_checkpoint(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for name in ("validate", "fit"):
        code, error = stage(name, "--ckpt_path", file)
        assert code == 2
        assert f"{file} is damaged (its sha256 does not match" in error
    with pytest.raises(UserError, match="is damaged"):
        probe.load(file)


def test_weights_of_another_export_are_refused(tmp_path: Path) -> None:
    first = ROOT / "tests/data/checkpoints_by_module_name/classifier.ckpt"
    trained = probe.load(first)
    probe.save_pretrained(trained, tmp_path / "a")
    with torch.no_grad():
        next(trained.parameters()).add_(1)
    probe.save_pretrained(trained, tmp_path / "b")
    shutil.copy(tmp_path / "b" / "probe.safetensors", tmp_path / "a")
    with pytest.raises(UserError, match=r"probe\.safetensors is not what probe\.json was written with"):
        probe.load(tmp_path / "a")


def test_export_restores_the_same_probe(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    restored = probe.load(tmp_path / "a" / "best.ckpt")
    probe.save_pretrained(restored, tmp_path / "export")
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["README.md", "probe.json", "probe.safetensors"]
    again = probe.load(tmp_path / "export")
    assert type(again) is probe.ProbeClassifier
    hidden = torch.randn(3, 8)
    torch.testing.assert_close(again.predict_scores(hidden), restored.predict_scores(hidden), atol=0, rtol=0)
    assert torch.equal(again.threshold, restored.threshold)  # type: ignore[arg-type]
    assert again.training_record == json.loads(json.dumps(restored.training_record))


SETTINGS = {"hidden": [4], "dropout": 0.2, "activation": "gelu", "lr": 0.5, "patience": 7, "factor": 0.3}
"""Settings of the base classes, which every probe takes under the same flat names."""


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (probe.ProbeClassifier, {"gamma_neg": 3.0, "gamma_pos": 2.0, "clip": 0.1, "reduction": "sum"}),
        (probe.ProbeRegressor, {"top": 3, "blend": 0.5}),
        (
            probe.OffsetProbes,
            {"num_offsets": 2, "target": "reasoning", "clip_norm": 0.5, "wake_offsets": [2], "threshold": 0.4},
        ),
    ],
)
def test_checkpoints_keep_all_settings_but_those_of_a_run(kind: Any, own: dict[str, Any]) -> None:
    built = kind(8, 6, resamples=9, seed=5, **SETTINGS, **own)
    assert dict(built.hparams) == {"in_features": 8, "num_heads": 6, **SETTINGS, **own}
    assert (built.resamples, built.bootstrap_seed, built.lr, built.patience) == (9, 5, 0.5, 7)
    defaults = kind(8, 6, hidden=[4])
    assert dict(defaults.hparams).keys() == dict(built.hparams).keys()
    with pytest.raises(TypeError, match="patiens"):
        kind(8, 6, patiens=3)


def test_settings_of_the_base_are_keys_of_every_config(stage: Stage, tmp_path: Path) -> None:
    flags = [part for name, value in SETTINGS.items() for part in (f"--model.init_args.{name}", value)]
    assert stage("fit", *flags, "--trainer.max_epochs", 1)[0] == 0
    saved = torch.load(tmp_path / "a" / "best.ckpt", weights_only=True)["hyper_parameters"]
    assert {name: saved[name] for name in SETTINGS} == SETTINGS
    code, said = stage("fit", "--model.init_args.patiens", 3)
    assert (code, "did you mean 'patience'" in said) == (2, True)


def test_another_llm_is_refused_naming_both(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    other = replace(IDENTITY, name="other-llm", weights="sha256:" + "1" * 64)
    checkpoint = tmp_path / "a" / "best.ckpt"
    with pytest.raises(UserError, match=r"trained on toy .* not valid for other-llm"):
        probe.load(checkpoint, llm=other)
    assert probe.load(checkpoint, llm=replace(IDENTITY, name="same weights", dtype="bfloat16"))
    foreign = make_store(tmp_path / "foreign", identity=other)
    code, error = stage("test", "--ckpt_path", checkpoint, "--store", foreign)
    assert code == 2
    assert "trained on toy" in error
    assert "other-llm" in error


def test_another_split_of_the_same_store_is_refused(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    checkpoint = tmp_path / "a" / "best.ckpt"
    code, error = stage("test", "--ckpt_path", checkpoint, "--data.init_args.split.seed", 1)
    assert code == 2
    assert "test rows would be training rows" in error


def test_training_samples_in_another_store_are_refused(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    larger = make_store(tmp_path / "larger", samples=120)  # same task and seed: its first samples are the trained ones
    options = ("--ckpt_path", tmp_path / "a" / "best.ckpt", "--data.init_args.split.seed", 1)
    code, error = stage("test", *options, "--store", larger)
    assert code == 2
    assert "were training or validation samples of this probe" in error
    fresh = make_store(tmp_path / "fresh", samples=120, name="other")
    assert stage("test", *options, "--store", fresh)[0] == 0


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_samples_of_every_store_that_was_fitted_on_are_remembered(stage: Stage, tmp_path: Path, store: Path) -> None:
    """Fitted on one store, then on another: neither is a test set afterwards."""
    assert stage("fit")[0] == 0
    second = make_store(tmp_path / "second", samples=40, name="second", seed=3)
    resumed = ("--ckpt_path", tmp_path / "a" / "best.ckpt", "--trainer.max_epochs", 40)
    code, error = stage("fit", *resumed, "--store", second, folder="b")
    assert code == 0, error
    last = tmp_path / "b" / "best.ckpt"
    trained = probe.load(last)
    assert {name.partition(":")[0] for name in trained.training_ids} == {"toy", "second"}
    third = make_store(tmp_path / "third", samples=40, name="third", seed=4)
    options = ("--ckpt_path", last, "--store", third, "--data.init_args.test_store")
    assert "90 of the test samples" in stage("test", *options, store)[1]
    assert "36 of the test samples" in stage("test", *options, second)[1]
    assert stage("test", "--ckpt_path", last, "--store", third)[0] == 0


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        (("--data.init_args.offset", 1), {}, "this probe predicts the scores of 0 steps later"),
        (REGRESSOR, {"sink": 2}, "leaves out sink 2 and local 64, but that of the data that this probe was trained on"),
    ],
)
def test_scores_that_a_probe_does_not_predict_are_refused(
    options: tuple[object, ...], changes: dict[str, Any], words: str, stage: Stage, tmp_path: Path
) -> None:
    """Neither another step's nor those of an Eq. 2 that leaves out other keys, for a test or for further training."""
    kind = REGRESSOR if options == REGRESSOR else ()
    assert stage("fit", *kind)[0] == 0
    fresh = make_store(tmp_path / "fresh", samples=60, seed=5, name="fresh", **changes)
    checkpoint = ("--ckpt_path", tmp_path / "a" / "best.ckpt", "--store", fresh, *options)
    for name in ("test", "validate", "fit"):
        code, error = stage(name, *checkpoint)
        assert (code, words in error) == (2, True), error


def test_a_test_store_of_another_equation_is_refused(stage: Stage, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", samples=30, seed=5, name="other", sink=2)
    code, error = stage("fit", *REGRESSOR, "--data.init_args.test_store", other)
    assert code == 2
    assert "leaves out sink 2 and local 64" in error
    assert stage("fit", "--data.init_args.test_store", other)[0] == 0  # Eq. 1 leaves out no key


def test_offset_and_row_split_train_too(stage: Stage, tmp_path: Path) -> None:
    options = ("--data.init_args.offset", 1, "--data.init_args.split.by", "row")
    assert stage("fit", *options)[0] == 0
    assert stage("test", "--ckpt_path", tmp_path / "a" / "best.ckpt", *options)[0] == 0
    assert results(tmp_path)["split"]["by"] == "row"
    assert results(tmp_path)["split"]["offset"] == 1


def test_regressor(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit", *REGRESSOR)[0] == 0
    assert stage("test", *REGRESSOR, "--ckpt_path", tmp_path / "a" / "best.ckpt")[0] == 0
    found = results(tmp_path)
    assert found["probe"]["mse"] < found["static"]["mse"]
    assert type(probe.load(tmp_path / "a" / "best.ckpt")) is probe.ProbeRegressor
    code, error = stage("test", "--ckpt_path", tmp_path / "a" / "best.ckpt")
    assert code == 2
    assert "holds a probe.ProbeRegressor, but model.class_path is probe.ProbeClassifier" in error


def test_regressor_results_name_baselines_ranking_and_intervals(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit", *REGRESSOR, "--model.init_args.figure_every", 4)[0] == 0
    assert stage("test", *REGRESSOR, "--ckpt_path", tmp_path / "a" / "best.ckpt")[0] == 0
    found = results(tmp_path)
    assert set(found["differences"]) == set(BASELINES)
    for evaluated in ("probe", *BASELINES):
        for name in REGRESSION_METRICS:
            low, high = found[evaluated]["intervals"][name]
            assert low <= found[evaluated][name] <= high or math.isnan(found[evaluated][name])
    assert found["ridge"]["mse"] < found["static"]["mse"]
    assert found["probe"]["top_overlap"] > found["static"]["top_overlap"]
    assert found["top"] == 5
    (folder, *_) = sorted((tmp_path / "a").glob("classifier/*/version_*"))
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "val/predicted_against_true" in events.Tags()["images"]
    assert {"val/r2_variance_weighted", "val/r2_flattened", "val/ndcg"} <= set(events.Tags()["scalars"])


def test_the_ranking_regressor_blends_and_restores(stage: Stage, tmp_path: Path) -> None:
    options = ("-c", "configs/regressor/ranking.yaml")
    assert stage("fit", *REGRESSOR, *options)[0] == 0
    assert stage("test", *REGRESSOR, *options, "--ckpt_path", tmp_path / "a" / "best.ckpt")[0] == 0
    found = results(tmp_path)
    assert found["probe"]["rank_correlation"] > 0.5
    restored = probe.load(tmp_path / "a" / "best.ckpt")
    probe.save_pretrained(restored, tmp_path / "export")
    hidden = torch.randn(3, 8)
    again: Any = probe.load(tmp_path / "export")
    torch.testing.assert_close(again.predict_scores(hidden), restored.predict_scores(hidden), atol=0, rtol=0)
    half = (again(hidden) + hidden @ again.ridge_weight.T + again.ridge_bias) / 2
    torch.testing.assert_close(again.predict_scores(hidden), half)
    code, error = stage("fit", *REGRESSOR, "--model.init_args.blend", 1.0)
    assert code == 2
    assert "model.init_args.blend: at least 0 and below 1, not 1.0" in error


def test_another_store_as_test_split(stage: Stage, tmp_path: Path, store: Path) -> None:
    fresh = make_store(tmp_path / "fresh", samples=30, seed=5, name="dev")
    options = (*REGRESSOR, "--data.init_args.test_store", fresh, "--data.init_args.split.fractions", "[0.8,0.2,0.0]")
    assert stage("fit", *options)[0] == 0
    assert stage("test", *options, "--ckpt_path", tmp_path / "a" / "best.ckpt")[0] == 0
    assert results(tmp_path)["samples"] == 30
    assert results(tmp_path)["test_store"] != results(tmp_path)["store"]
    shared = make_store(tmp_path / "shared", samples=30, seed=5)
    code, error = stage("fit", *REGRESSOR, "--data.init_args.test_store", shared)
    assert code == 2
    rows = ScoreRows(str(store))
    rows.setup("fit")
    wanted = {f"toy:{number}" for number in range(30)} & (rows.split_ids("train") | rows.split_ids("val"))
    assert f"shares {len(wanted)} samples with the training and validation splits" in error
    other = replace(IDENTITY, name="other-llm", weights="sha256:" + "1" * 64)
    foreign = make_store(tmp_path / "foreign", identity=other, name="dev")
    code, error = stage("fit", *REGRESSOR, "--data.init_args.test_store", foreign)
    assert code == 2
    assert "other-llm" in error
    code, error = stage("fit", *REGRESSOR, "--data.init_args.split.fractions", "[0.8,0.2,0.0]")
    assert code == 2
    assert "needs a data.test_store" in error


def test_a_smaller_training_set_lies_within_a_larger_one(store: Path) -> None:
    def ids(limit: int | None) -> dict[str, set[str]]:
        rows = ScoreRows(str(store), split=Split(limit=limit))
        rows.setup("fit")
        return {part: rows.split_ids(part) for part in ("train", "val", "test")}  # type: ignore[arg-type]

    some, more, every = ids(7), ids(20), ids(None)
    assert (len(some["train"]), len(more["train"]), len(every["train"])) == (7, 20, 70)
    assert some["train"] < more["train"] < every["train"]
    assert some["val"] == every["val"]
    assert some["test"] == every["test"]
    with pytest.raises(UserError, match=r"Split\.limit: at least 1"):
        ids(0)


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_no_pickled_code_is_executed(tmp_path: Path) -> None:
    torch.save({"probe": Bomb(tmp_path / "boom")}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        probe.load(tmp_path / "evil.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "boom"), protocol=2))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        probe.load(tmp_path / "raw.ckpt")
    assert not (tmp_path / "boom").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_spawn")
def test_two_processes_test_to_the_same_metrics(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit")[0] == 0
    checkpoint = tmp_path / "a" / "best.ckpt"
    assert stage("test", "--ckpt_path", checkpoint)[0] == 0
    one = results(tmp_path)
    ddp = ("--trainer.devices", 2, "--trainer.strategy", "ddp_spawn")
    assert stage("test", "--ckpt_path", checkpoint, *ddp)[0] == 0
    two = results(tmp_path)
    assert {k: two[k] for k in ("rows", "samples", "probe", "static")} == {
        k: one[k] for k in ("rows", "samples", "probe", "static")
    }


def test_contributions_are_predicted_by_a_regressor_of_their_own(stage: Stage, tmp_path: Path) -> None:
    """As the regressor of reasoning scores; each refuses the other's target, and RAG takes reasoning alone."""
    scores = make_store(tmp_path / "scores", samples=60, contribution=True)
    target = ("--data.init_args.target", "contribution")
    options = (*REGRESSOR, "--model", "probe.ContributionRegressor", "--store", scores)
    assert stage("fit", *options, *target, "--trainer.max_epochs", 2)[0] == 0
    best = tmp_path / "a" / "best.ckpt"
    assert stage("test", *options, *target, "--ckpt_path", best)[0] == 0
    found = results(tmp_path)
    assert found["ridge"]["r2_variance_weighted"] > 0.5
    assert probe.load(best).target == "contribution"
    code, said = stage("fit", *options)
    assert code == 2
    assert "data.target is reasoning, but ContributionRegressor predicts contribution" in said
