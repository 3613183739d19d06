"""Callbacks with keys of their own: merged, replaced by a list, left out, in order."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from probe.cli.config.checkpoint_paths import checkpoint_path
from probe.cli.named_callbacks import NAMED, leave_out_listed, named_callbacks
from tests.conftest import Run
from tests.helpers.bad_input import FIT, TINY
from tests.helpers.stores import make_store

BASE = "lightning.pytorch.callbacks"


def spec(name: str, **settings: Any) -> dict[str, Any]:
    return {"class_path": name if "." in name else f"{BASE}.{name}", "init_args": settings}


def configured(*listed: Any, **named: Any) -> dict[str, Any]:
    return {**dict.fromkeys(NAMED), **named, "trainer": {"callbacks": list(listed)}}


SHIPPED = {
    "checkpoint": spec("ModelCheckpoint", monitor="val/loss", dirpath="a"),
    "lr_monitor": spec("LearningRateMonitor"),
    "progress_bar": spec("TQDMProgressBar"),
    "artifacts": spec("probe.Artifacts"),
    "writer": spec("extract.ScoreWriter"),
    "rag": spec("probe.rag.RagEvaluation"),
}


@pytest.mark.parametrize(
    ("listed", "left_out"),
    [
        ([], []),
        ([spec("EarlyStopping", monitor="val/loss")], []),
        ([spec("ModelCheckpoint", monitor="val/loss", dirpath="mine")], ["checkpoint"]),
        ([spec("ModelCheckpoint", monitor="val/f1")], []),
        ([spec("ModelCheckpoint")], []),
        ([spec("RichProgressBar"), spec("probe.Artifacts")], ["progress_bar", "artifacts"]),
        ([spec("extract.ScoreWriter"), spec("probe.rag.RagEvaluation")], ["writer", "rag"]),
        ([spec("LearningRateMonitor")], ["lr_monitor"]),
    ],
)
def test_a_listed_callback_takes_the_place_of_its_key(
    listed: list[Any], left_out: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(*listed, **SHIPPED)
    with caplog.at_level("INFO"):
        leave_out_listed(config)
    assert [key for key in NAMED if config[key] is None] == left_out
    assert len(caplog.messages) == bool(left_out)
    assert all(key in caplog.messages[0] for key in left_out)


def test_the_order_is_that_of_the_keys() -> None:
    bar, saver = TQDMProgressBar(), ModelCheckpoint()
    assert named_callbacks({"progress_bar": bar, "rag": None, "checkpoint": saver}) == [saver, bar]


@pytest.mark.parametrize(
    ("listed", "found"), [([], "a"), ([spec("ModelCheckpoint", monitor="val/loss", dirpath="mine")], "mine")]
)
def test_the_last_checkpoint_is_that_of_the_callback_that_runs(
    listed: list[Any], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "mine"):
        Path(folder).mkdir()
        Path(folder, "last.ckpt").touch()
    config = configured(*listed, **SHIPPED)
    leave_out_listed(config)
    assert checkpoint_path("fit", {**config, "ckpt_path": "last"}) == Path(found, "last.ckpt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "s")
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def test_settings_of_two_configs_and_the_command_line_are_merged(
    run: Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yaml").write_text("rag: {init_args: {windows: {k: 8}, trials: mine}}\ncheckpoint: null\n")
    with pytest.raises(SystemExit):
        run("test", "-c", "rag.yaml", "-c", "mine.yaml", "--rag.init_args.windows.width", "24", "--print_config")
    found = yaml.safe_load(capsys.readouterr().out)
    rag = found["rag"]
    assert (rag["class_path"], rag["init_args"]["trials"]) == ("probe.rag.RagEvaluation", "mine")
    assert rag["init_args"]["windows"] == {"heads": 5, "k": 8, "gap": 8, "width": 24}
    assert len(rag["init_args"]["strategies"]) == 9
    assert found["checkpoint"] is None


def test_a_number_out_of_range_is_named(run: Run, here: Path) -> None:
    code, said = run("test", "-c", "rag.yaml", "--store", "s", "--rag.init_args.windows.k", 0)
    assert (code, said.splitlines()[-1]) == (2, "error: rag.init_args.windows.k: at least 1, not 0")


@pytest.mark.filterwarnings("ignore")
def test_an_old_config_with_a_list_runs_as_before(run: Run, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One ModelCheckpoint with the shipped one's state, where it always was; and one more beside it."""
    saver = spec("ModelCheckpoint", dirpath="mine", filename="best", monitor="val/loss")
    bars = [spec("TQDMProgressBar"), spec("LearningRateMonitor"), spec("probe.Artifacts")]
    (here / "old.yaml").write_text(json.dumps({"trainer": {"callbacks": [saver, *bars]}}))
    with caplog.at_level("INFO"):
        assert run(*FIT, "-c", "old.yaml")[0] == 0
    assert "without checkpoint, lr_monitor, progress_bar, artifacts of the config" in " ".join(caplog.messages)
    assert Path("mine", "best.ckpt").exists() and not Path("ckpts").exists()
    every = json.dumps(spec("ModelCheckpoint", dirpath="often", every_n_epochs=1))
    assert run(*FIT, "--trainer.callbacks+", every)[0] == 0
    assert list(Path("often").glob("*.ckpt")) and Path("ckpts", "s", "classifier", "best.ckpt").exists()
