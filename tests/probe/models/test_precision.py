"""Probes under automatic mixed precision: every probe trains, its loss is in float32, its metrics are the same."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from probe.cli.main import main
from probe.models.losses import asymmetric_loss, masked_mse
from tests.conftest import Run
from tests.helpers.stores import make_store

Stage = Callable[..., tuple[int, str]]
REASONING = ("--data.init_args.target", "reasoning")
PROBES: dict[str, tuple[str, tuple[object, ...]]] = {
    "classifier": ("probe", ()),
    "regressor": ("regressor", ("--model.init_args.blend", 0.5)),
    "offset classifiers": ("offset_probes", ("--data.init_args.offsets", 2)),
    "offset regressors": ("offset_probes", (*REASONING, "--data.init_args.offsets", 2)),
}
PLUGIN = {"class_path": "lightning.pytorch.plugins.precision.MixedPrecision"}
SCALED = {**PLUGIN, "init_args": {"precision": "16-mixed", "device": "cpu"}}
"""float16 with a gradient scaler, for which Lightning's own flag wants a GPU."""
MIXED: dict[str, tuple[object, ...]] = {
    "bf16-mixed": ("--trainer.precision", "bf16-mixed"),
    "16-mixed": ("--trainer.plugins", json.dumps(SCALED)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=100)


@pytest.fixture
def stage(run: Run, store: Path, tmp_path: Path) -> Stage:
    """A stage of a shipped config, made small, in a folder below `tmp_path`."""
    return lambda name, config, folder, *args: run(*command(name, config, store, tmp_path / folder, *args))


def command(name: str, config: str, store: Path, out: Path, *args: object) -> tuple[object, ...]:
    best = {"dirpath": str(out), "filename": "best", "monitor": "val/loss", "enable_version_counter": False}
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": best},
        {"class_path": "probe.Artifacts", "init_args": {"folder": str(out)}},
    ]
    return (
        *(name, "-c", f"configs/{config}.yaml", "-c", "tests/configs/tiny_probe.yaml", "--store", store),
        *("--trainer.callbacks", json.dumps(callbacks), "--trainer.default_root_dir", out),
        *("--trainer.logger", "false", "--model.init_args.resamples", 5, *args),
    )


@pytest.fixture(scope="module")
def full(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a probe that was trained and tested in float32, once for all precisions."""

    @functools.cache
    def trained(name: str) -> Path:
        config, options = PROBES[name]
        out = tmp_path_factory.mktemp("full")
        for stage, more in (("fit", ()), ("test", ("--ckpt_path", out / "best.ckpt"))):
            assert main([str(arg) for arg in command(stage, config, store, out, *options, *more)]) == 0
        return out

    return trained


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return {name: found[name] for name in ("probe", "static", "ridge", "offsets") if name in found}


def weights(folder: Path) -> torch.Tensor:
    state = torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
    assert all(value.dtype == torch.float32 for value in state.values())
    return torch.cat([value.flatten() for value in state.values()])


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize("name", PROBES)
def test_a_probe_trains_and_its_metrics_do_not_depend_on_the_precision_of_the_test(
    name: str, precision: str, stage: Stage, full: Callable[[str], Path], tmp_path: Path
) -> None:
    config, options = PROBES[name]
    code, error = stage("fit", config, "mixed", *options, *MIXED[precision])
    assert code == 0, error
    assert not torch.equal(weights(tmp_path / "mixed"), weights(full(name)))  # it was mixed indeed
    assert weights(tmp_path / "mixed").isfinite().all()
    checkpoint = ("--ckpt_path", tmp_path / "mixed" / "best.ckpt")
    assert stage("test", config, "mixed", *options, *MIXED[precision], *checkpoint)[0] == 0
    tested = results(tmp_path / "mixed")
    assert stage("test", config, "mixed", *options, *checkpoint)[0] == 0
    assert results(tmp_path / "mixed") == tested
    for mixed, exact in zip(headline(tmp_path / "mixed"), headline(full(name)), strict=True):
        assert mixed == pytest.approx(exact, abs=0.05)


def headline(folder: Path) -> list[float]:
    """F1 or R² of every probe in a run."""
    found = results(folder)
    probes = [offset["probe"] for offset in found["offsets"]] if "offsets" in found else [found["probe"]]
    metrics = [one.get("f1", one.get("r2_variance_weighted")) for one in probes]
    return [metric["value"] if isinstance(metric, dict) else metric for metric in metrics]


@pytest.mark.parametrize("first", ["32-true", "bf16-mixed"])
def test_training_goes_on_under_another_precision(first: str, stage: Stage, tmp_path: Path) -> None:
    second = {"32-true": "bf16-mixed", "bf16-mixed": "32-true"}[first]
    assert stage("fit", "probe", "a", "--trainer.precision", first, "--trainer.max_epochs", 2)[0] == 0
    checkpoint = ("--ckpt_path", tmp_path / "a" / "best.ckpt", "--trainer.max_epochs", 4)
    code, error = stage("fit", "probe", "a", "--trainer.precision", second, *checkpoint)
    assert code == 0, error


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "transformer-engine"])
@pytest.mark.parametrize("config", ["probe", "dynamism", "correlation"])
def test_other_precisions_are_refused(config: str, precision: str, run: Run, store: Path, tmp_path: Path) -> None:
    name = "fit" if config == "probe" else "test"
    options = ("--trainer.precision", precision, "--trainer.default_root_dir", tmp_path / "r")
    code, error = run(name, "-c", f"configs/{config}.yaml", "--store", store, *options, "--trainer.logger", "false")
    assert code == 2
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert "precision" in line or "transformer_engine" in line


@pytest.mark.parametrize("config", ["dynamism", "correlation"])
def test_experiments_on_stores_do_not_depend_on_mixed_precision(
    config: str, measured: Callable[..., Any], store: Path
) -> None:
    options = {
        "dynamism": ("--model.init_args.static_top", 3, "--model.init_args.static_sizes", "[3]"),
        "correlation": ("--data.init_args.groups", 2),
    }[config]
    full, mixed = (
        measured(config, store, "--trainer.precision", precision, *options) for precision in ("32-true", "bf16-mixed")
    )
    assert isinstance(full, dict), full
    unnamed = {"command": "", "sha256": ""}
    assert json.dumps({**mixed, **unnamed}) == json.dumps({**full, **unnamed})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32_from_the_logits(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(20, 6).to(dtype), (torch.rand(20, 6) > 0.7).float()
    for loss, truth in ((asymmetric_loss, labels), (masked_mse, torch.rand(20, 6))):
        with torch.autocast("cpu", dtype=dtype):
            found = loss(logits, truth)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(logits.float(), truth), atol=0, rtol=0)
