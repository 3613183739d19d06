"""Probes saved when checkpoints named classes by their former modules: they load, and evaluate to the same metrics."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import probe
from tests.conftest import ROOT, Run
from tests.helpers.stores import make_store

SAVED = ROOT / "tests/data/checkpoints_by_module_name"
METRICS: dict[str, Any] = json.loads((SAVED / "metrics.json").read_text())
OVERLAYS = {
    "classifier": ("probe", ()),
    "regressor": ("probe", ("-c", "tests/configs/regressor.yaml")),
    "offsets": ("offset_probes", ("--data.init_args.offsets", 1)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that the saved probes were trained on."""
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=100)


@pytest.fixture
def evaluate(run: Run, store: Path, tmp_path: Path) -> Callable[[str, Path], Any]:
    """`lightning test` of a checkpoint: its results."""

    def call(kind: str, checkpoint: Path) -> Any:
        config, more = OVERLAYS[kind]
        hidden = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["hidden"]  # not those of tiny_probe.yaml
        report = {"class_path": "probe.Artifacts", "init_args": {"folder": str(tmp_path)}}
        code, said = run(
            *("test", "-c", f"configs/{config}.yaml", "-c", "tests/configs/tiny_probe.yaml", *more),
            *("--model.init_args.hidden", hidden, "--store", store, "--ckpt_path", checkpoint),
            *("--trainer.callbacks", json.dumps([report])),
            *("--trainer.logger", "false", "--trainer.default_root_dir", tmp_path),
        )
        assert code == 0, said
        return json.loads((tmp_path / "results.json").read_text())

    return call


def numbers(results: Any) -> dict[tuple[Any, ...], float]:
    """The numbers of nested results by their path."""
    if isinstance(results, int | float):
        return {(): float(results)}
    if not isinstance(results, dict | list):
        return {}
    items = results.items() if isinstance(results, dict) else enumerate(results)
    return {(key, *path): value for key, inner in items for path, value in numbers(inner).items()}


@pytest.mark.parametrize("kind", OVERLAYS)
def test_a_former_checkpoint_evaluates_to_the_metrics_of_its_time(
    evaluate: Callable[[str, Path], Any], tmp_path: Path, kind: str
) -> None:
    former = torch.load(SAVED / f"{kind}.ckpt", weights_only=True)["probe"]["class"]
    assert former.split(".")[1] in ("classifier", "regressor", "offsets")  # a module's name, not the public one
    shutil.copy(SAVED / f"{kind}.ckpt", tmp_path / "best.ckpt")  # the card is written beside it
    found, wanted = numbers(evaluate(kind, tmp_path / "best.ckpt")), numbers(METRICS[kind])
    assert {path: found[path] for path in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert not any("step" in path or "wake_ups" in path for path in found)  # it has no table of step numbers


def test_a_former_checkpoint_and_export_are_loaded_as_the_same_probe() -> None:
    saved = probe.load(SAVED / "classifier.ckpt")
    exported = probe.load(SAVED / "classifier")
    assert type(saved) is type(exported) is probe.ProbeClassifier
    assert saved.hparams["hidden"] == exported.hparams["hidden"] == [8, 4]
    assert saved.training_record == exported.training_record
    assert {"toy:0", "toy:99"} <= saved.training_ids
    hidden = torch.randn(3, 8)
    assert torch.equal(saved.predict_scores(hidden), exported.predict_scores(hidden))
    assert type(probe.load(SAVED / "regressor.ckpt")) is probe.ProbeRegressor


def test_a_former_checkpoint_saved_again_has_the_public_name(tmp_path: Path) -> None:
    probe.save_pretrained(probe.load(SAVED / "classifier.ckpt"), tmp_path / "export")
    config = json.loads((tmp_path / "export" / "probe.json").read_text())
    former = json.loads((SAVED / "classifier" / "probe.json").read_text())
    assert {len(config.pop(name)) for name in ("sha256", "weights_sha256")} == {64}
    assert config.pop("class") == "probe.ProbeClassifier"
    assert former.pop("class") == "probe.classifier.ProbeClassifier"
    # `resamples` and `seed` belong to a test run and are in neither
    # settings that it did not have have the values of its time
    former["settings"] |= {"activation": "relu", "reduction": "mean"}
    assert config == former


@pytest.mark.parametrize("name", ["classifier.ckpt", "classifier"])
def test_a_probe_without_a_hash_is_loaded_with_a_remark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level("INFO"):
        trained = probe.load(SAVED / name)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{SAVED / name} carries no hash of its content")
    caplog.clear()
    probe.save_pretrained(trained, tmp_path)
    with caplog.at_level("INFO"):
        probe.load(tmp_path)
    assert not caplog.records
