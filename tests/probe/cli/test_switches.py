"""Lightning's switches in every stage of the shipped configs: they work, or are refused in one line."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
)

from probe.cli.switches import BAREBONES, apply_switches
from tests.conftest import Run
from tests.helpers.stages import PROBES, Stages

FITS = tuple(f"fit {kind}" for kind in PROBES)
EVALUATIONS = (*(f"{name} {kind}" for name in ("validate", "test") for kind in PROBES),)
EVALUATIONS += ("test dynamism", "test correlation")
WITH_LLM = ("predict", "test ablation", "test rag")
EVERYWHERE = (*FITS, *EVALUATIONS, *WITH_LLM)


def trainer(**settings: object) -> list[str]:
    """Settings of the Trainer as options."""
    return [arg for name, value in settings.items() for arg in (f"--trainer.{name}", _text(value))]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def callback(name: str, **settings: object) -> list[str]:
    """A callback of Lightning's beside those of the config."""
    return ["--trainer.callbacks+", json.dumps(_of("callbacks", name, settings))]


def logger(*names: str) -> list[str]:
    """Loggers of Lightning's in place of the config's."""
    found = [_of("loggers", name, {"save_dir": "runs", "name": name}) for name in names]
    return ["--trainer.logger", json.dumps(found if len(found) > 1 else found[0])]


def _of(module: str, name: str, settings: dict[str, object]) -> dict[str, object]:
    return {"class_path": f"lightning.pytorch.{module}.{name}", "init_args": settings}


OFF = trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False)
ONE_BATCH = trainer(**{f"limit_{name}_batches": 1 for name in ("train", "val", "test", "predict")})
UNFINISHED = {"predict": "batches are missing", "test ablation": "trials; run the same command again"}
SWITCHES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "logger, bar and checkpoints off": (OFF, EVERYWHERE),
    "logger off": (trainer(logger=False), FITS[:1]),
    "progress bar off": (trainer(enable_progress_bar=False), FITS[:1]),
    "checkpoints off": (trainer(enable_checkpointing=False), FITS[:1]),
    "barebones": (trainer(barebones=True), EVERYWHERE),
    "fast_dev_run": (trainer(fast_dev_run=True), (*FITS, *EVALUATIONS, "predict")),
    "one batch": (ONE_BATCH, (*FITS[:1], "test classifier", *WITH_LLM)),
    "another bar": (callback("RichProgressBar"), EVERYWHERE[::3]),
    "two loggers": (logger("CSVLogger", "TensorBoardLogger"), EVERYWHERE[1::3]),
    "one other logger": (logger("CSVLogger"), ("fit regressor", "test ablation")),
    "another bar of the same class": (callback("TQDMProgressBar", refresh_rate=1), ("fit classifier", "predict")),
    "overfit_batches": (trainer(overfit_batches=1), FITS),
    "overfit_batches as a share": (trainer(overfit_batches=1.0), FITS[:1]),
    "validation every other epoch": (trainer(check_val_every_n_epoch=2), FITS),
    "validation within an epoch": (trainer(val_check_interval=2), FITS[:1]),
    "no validation": (trainer(limit_val_batches=0), FITS),
    "bf16-mixed": (trainer(precision="bf16-mixed"), FITS[:1]),
    "max_time": (trainer(max_time="00:01:00:00"), FITS[:1]),
    "max_steps": (trainer(max_steps=3), FITS[:1]),
    "accumulate_grad_batches": (trainer(accumulate_grad_batches=2), FITS[:1]),
    "detect_anomaly, deterministic": (trainer(detect_anomaly=True, deterministic=True, benchmark=True), FITS[:1]),
    "profiler": (trainer(profiler="simple"), ("fit classifier", "test dynamism")),
    "own checkpoints": (
        callback("ModelCheckpoint", dirpath="mine", monitor="val/f1", mode="max", save_top_k=2, filename="{epoch}"),
        FITS[:1],
    ),
    "checkpoints by steps": (callback("ModelCheckpoint", dirpath="mine", every_n_train_steps=2), FITS[:1]),
    "early stopping": (callback("EarlyStopping", monitor="val/loss", patience=1), FITS),
    "averaged weights": (callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1), FITS[:1]),
    "learning rate finder": (callback("LearningRateFinder", num_training_steps=5), FITS[:2]),
    "batch size finder": (callback("BatchSizeFinder", max_trials=1, steps_per_trial=1), FITS[:1]),
    "no callbacks": (["--trainer.callbacks", "null"], ("fit classifier", "test dynamism")),
}
ROWS = [(name, stage) for name, (_, stages) in SWITCHES.items() for stage in stages]
REFUSED = {
    "a monitor that is not logged": ("fit classifier", callback("ModelCheckpoint", monitor="val/none"), "val/none"),
    "another precision": ("fit classifier", trainer(precision="16-true"), "trainer.precision"),
    "a logger that is not installed": ("test classifier", logger("WandbLogger"), "pip install"),
    "two switches that exclude each other": ("fit classifier", trainer(barebones=True, fast_dev_run=True), "barebones"),
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, tiny_llm_folder: Path) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"), tiny_llm_folder).prepare()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on the switches
@pytest.mark.parametrize(("name", "stage"), ROWS)
def test_a_switch_works(name: str, stage: str, stages: Stages, run: Run, here: Path) -> None:
    code, said = run(*stages.argv(stage, *SWITCHES[name][0]))
    unfinished = UNFINISHED.get(stage) if name in ("one batch", "fast_dev_run") else None
    assert code == (2 if unfinished else 0), said
    if unfinished:
        (line,) = [line for line in said.splitlines() if line.startswith("error:")]
        assert unfinished in line
    assert list(here.rglob("results.json")) or not stage.startswith("test") or unfinished or name == "no callbacks"
    assert list(here.rglob("*.ckpt")) or "fit" not in stage or name in WITHOUT_CHECKPOINT


WITHOUT_CHECKPOINT = ("logger, bar and checkpoints off", "checkpoints off", "barebones", "fast_dev_run")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_work_is_one_line(name: str, stages: Stages, run: Run, here: Path) -> None:
    stage, switch, words = REFUSED[name]
    code, said = run(*stages.argv(stage, *switch))
    assert code == 2
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert words in line


def without(caplog: pytest.LogCaptureFixture, **settings: Any) -> tuple[list[type[Callback]], str]:
    """Classes of the callbacks that are left of those of a shipped config, and what is said."""
    callbacks = [ModelCheckpoint(), LearningRateMonitor(), TQDMProgressBar(), *settings.pop("more", [])]
    with caplog.at_level(logging.INFO):
        found = apply_switches({"callbacks": callbacks, **settings})
    return [type(one) for one in found["callbacks"]], " ".join(caplog.messages)


ALL = [ModelCheckpoint, LearningRateMonitor, TQDMProgressBar]


@pytest.mark.parametrize(
    ("settings", "dropped", "said"),
    [
        ({}, [], ""),
        ({"logger": True, "enable_checkpointing": None, "enable_progress_bar": None, "barebones": False}, [], ""),
        ({"enable_checkpointing": False}, ALL[:1], "without ModelCheckpoint: trainer.enable_checkpointing: false"),
        ({"logger": False}, ALL[1:2], "without LearningRateMonitor: trainer.logger: false"),
        ({"logger": []}, ALL[1:2], "without LearningRateMonitor: trainer.logger: false"),
        ({"enable_progress_bar": False}, ALL[2:], "without TQDMProgressBar: trainer.enable_progress_bar: false"),
        ({"barebones": True}, ALL, "without ModelCheckpoint: trainer.barebones: true"),
        ({"more": [RichProgressBar()]}, ALL[2:], "without TQDMProgressBar: another progress bar, RichProgressBar"),
    ],
)
def test_the_switch_wins(
    settings: dict[str, Any], dropped: list[type[Callback]], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    more = [type(one) for one in settings.get("more", [])]
    left, message = without(caplog, **settings)
    assert left == [kind for kind in ALL if kind not in dropped] + more
    assert said in message and bool(said) == bool(message)


def test_barebones_turns_off_what_a_config_turns_on() -> None:
    given = dict.fromkeys(BAREBONES, 1) | {"barebones": True, "max_epochs": 3, "callbacks": None}
    assert apply_switches(given) == dict.fromkeys(BAREBONES) | {"barebones": True, "max_epochs": 3, "callbacks": []}


def test_the_same_batches_in_every_epoch(stages: Stages) -> None:
    """`overfit_batches` puts a sampler of numbers in place of that of (number, epoch) pairs."""
    from datamodules import ScoreRows

    rows = ScoreRows(str(stages.folder / "store"), batch_size=16)
    rows.setup("fit")
    batches = rows.batches("train")
    assert all((a == b).all() for a, b in zip(batches[1][:2], batches[1, 0][:2], strict=True))
    assert not (batches[1][0] == batches[1, 1][0]).all()


def test_the_rate_drops_by_validations(stages: Stages, run: Run, here: Path) -> None:
    """No progress, validated every other epoch, with patience 1: the third one, after epoch 5, drops the rate."""
    stuck = ("--model.init_args.lr", 1e-7, "--model.init_args.patience", 1, "--trainer.max_epochs", 10)
    switch = (*trainer(check_val_every_n_epoch=2), *logger("CSVLogger"))
    assert run(*stages.argv("fit classifier", *stuck, *switch))[0] == 0
    with (here / "runs" / "CSVLogger" / "version_0" / "metrics.csv").open() as file:
        rates = [float(row["lr-Adam"]) for row in csv.DictReader(file) if row["lr-Adam"]]
    assert rates == pytest.approx([1e-7] * 6 + [1e-8] * 4)
