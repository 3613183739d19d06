"""Settings beside `--ckpt_path`: those that a user gives are honoured or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Run
from tests.helpers.stores import make_store

Stage = Callable[..., tuple[int, str]]
TINY = {"hidden": [16], "lr": 0.01, "dropout": 0.0}
BASE = "lightning.pytorch.callbacks"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=100)


@pytest.fixture
def stage(run: Run, store: Path, tmp_path: Path) -> Stage:
    """A stage of a config that names the class of the model alone; its settings are given by options."""

    def call(name: str, kind: str, *args: object, settings: dict[str, Any] | None = None) -> tuple[int, str]:
        last = {"dirpath": str(tmp_path), "filename": "best", "monitor": "val/loss", "save_last": True}
        callbacks = [
            {"class_path": f"{BASE}.ModelCheckpoint", "init_args": {**last, "enable_version_counter": False}},
            {"class_path": "probe.Artifacts", "init_args": {"folder": str(tmp_path)}},
        ]
        reasoning = {"target": "reasoning"} if kind == "ProbeRegressor" else {}
        data = "OffsetRows" if kind == "OffsetProbes" else "ScoreRows"
        config = {
            "store": str(store),
            "model": {"class_path": f"probe.{kind}", "init_args": settings or {}},
            "data": {"class_path": f"datamodules.{data}", "init_args": {**reasoning, "batch_size": 64}},
            "trainer": {
                **{"accelerator": "cpu", "logger": False, "log_every_n_steps": 1, "num_sanity_val_steps": 0},
                **{"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(tmp_path)},
                "callbacks": callbacks,
            },
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        return run(name, "-c", tmp_path / "config.yaml", *args)

    return call


@pytest.fixture
def trained(stage: Stage, tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of two epochs."""

    def call(kind: str, *args: object, **settings: Any) -> Path:
        code, error = stage("fit", kind, "--trainer.max_epochs", 2, *args, settings={**TINY, **settings})
        assert code == 0, error
        return tmp_path / "last.ckpt"

    return call


def results(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    return found


def hyper_parameters(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)["hyper_parameters"]
    return found


def test_settings_that_are_not_given_are_the_checkpoints(stage: Stage, trained: Any, tmp_path: Path) -> None:
    checkpoint = trained("ProbeRegressor", blend=0.5, top=2)
    assert stage("test", "ProbeRegressor", "--ckpt_path", checkpoint)[0] == 0
    settings = results(tmp_path)["settings"]
    assert (settings["hidden"], settings["blend"], settings["top"]) == ([16], 0.5, 2)


@pytest.mark.parametrize("by", ["option", "config"])
@pytest.mark.parametrize("name", ["test", "validate"])
def test_settings_of_the_run_are_honoured(
    name: str, by: str, stage: Stage, trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that equals the default of the class, `blend`."""
    checkpoint, given = trained("ProbeRegressor", blend=0.5), {"top": 2, "blend": 0.0}
    assert stage("test", "ProbeRegressor", "--ckpt_path", checkpoint)[0] == 0
    before = results(tmp_path)
    options = [part for key, value in given.items() for part in (f"--model.init_args.{key}", value)]
    more: dict[str, Any] = {"settings": given} if by == "config" else {}
    by_option = options if by == "option" else []
    assert stage(name, "ProbeRegressor", "--ckpt_path", checkpoint, *by_option, **more)[0] == 0
    assert "model.init_args.blend: 0.0; the checkpoint was trained with 0.5" in caplog.text
    assert "model.init_args.top: 2; the checkpoint was trained with 5" in caplog.text
    if name == "test":
        after = results(tmp_path)
        assert (after["top"], after["settings"]["blend"]) == (2, 0.0)
        assert after["probe"]["mse"] != before["probe"]["mse"]
        assert after["ridge"]["mse"] == before["ridge"]["mse"]


@pytest.mark.parametrize("name", ["fit", "test", "validate"])
@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("ProbeClassifier", ("--model.init_args.hidden", "[8, 8]")),
        ("ProbeRegressor", ("--model.init_args.hidden", "[8]")),
        ("OffsetProbes", ("--model.init_args.hidden", "[8]")),
        ("OffsetProbes", ("--data.init_args.offsets", "3")),
        ("OffsetProbes", ("--data.init_args.target", "reasoning")),
    ],
)
def test_settings_that_weights_depend_on_are_refused_by_name(
    name: str, kind: str, wrong: tuple[str, str], stage: Stage, trained: Any
) -> None:
    checkpoint = trained(kind, *(("--data.init_args.offsets", 2) if kind == "OffsetProbes" else ()))
    same = ("--data.init_args.offsets", 2) if kind == "OffsetProbes" and "offsets" not in wrong[0] else ()
    epochs = ("--trainer.max_epochs", 3) if name == "fit" else ()
    code, error = stage(name, kind, "--ckpt_path", checkpoint, *same, *epochs, *wrong)
    assert code == 2
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert {"hidden": "hidden", "offsets": "num_offsets", "target": "target"}[wrong[0].rpartition(".")[2]] in line
    assert "the checkpoint was trained with" in line


def test_equal_structure_may_be_given(stage: Stage, trained: Any) -> None:
    checkpoint = trained("ProbeClassifier")
    assert stage("test", "ProbeClassifier", "--ckpt_path", checkpoint, "--model.init_args.hidden", "[16]")[0] == 0


def test_a_changed_rate_and_schedule_take_effect_when_training_goes_on(
    stage: Stage, trained: Any, tmp_path: Path
) -> None:
    checkpoint = trained("ProbeClassifier")
    steps = torch.load(checkpoint, weights_only=True)["global_step"]
    given = {"lr": 0.002, "patience": 7, "factor": 0.5, "gamma_neg": 2.0, "dropout": 0.3}
    options = [part for key, value in given.items() for part in (f"--model.init_args.{key}", value)]
    code, error = stage("fit", "ProbeClassifier", "--ckpt_path", checkpoint, "--trainer.max_epochs", 3, *options)
    assert code == 0, error
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {key: saved["hyper_parameters"][key] for key in given} == given
    assert saved["global_step"] > steps
    assert [group["lr"] for group in saved["optimizer_states"][0]["param_groups"]] == [0.002]
    assert (saved["lr_schedulers"][0]["patience"], saved["lr_schedulers"][0]["factor"]) == (7, 0.5)


def test_a_rate_that_the_schedule_lowered_stays_where_none_is_given(stage: Stage, trained: Any, tmp_path: Path) -> None:
    checkpoint = trained("ProbeClassifier")
    saved = torch.load(checkpoint, weights_only=True)
    saved["optimizer_states"][0]["param_groups"][0]["lr"] = 0.001
    torch.save(saved, checkpoint)
    assert stage("fit", "ProbeClassifier", "--ckpt_path", checkpoint, "--trainer.max_epochs", 3)[0] == 0
    again = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert again["optimizer_states"][0]["param_groups"][0]["lr"] == 0.001


def test_a_checkpoint_that_lightning_finds_is_checked_too(stage: Stage, trained: Any) -> None:
    trained("ProbeClassifier")
    options = ("--ckpt_path", "last", "--trainer.max_epochs", 3)
    code, error = stage("fit", "ProbeClassifier", *options, settings={**TINY, "hidden": [8]})
    assert code == 2
    assert "model.init_args.hidden: [8] here, but the checkpoint was trained with [16]" in error


def test_a_checkpoint_that_is_named_by_a_word_is_checked_as_a_path_is(
    stage: Stage, trained: Any, tmp_path: Path
) -> None:
    """Its settings are taken, its class and content checked before any work."""
    checkpoint = trained("ProbeRegressor", blend=0.5, top=2)
    (tmp_path / "hpc_ckpt_12.ckpt").write_bytes(checkpoint.read_bytes())
    (tmp_path / "hpc_ckpt_9.ckpt").write_bytes(b"older")
    assert stage("test", "ProbeRegressor", "--ckpt_path", "best")[0] == 0
    assert results(tmp_path)["settings"]["blend"] == 0.5
    for name, file in (("last", "last.ckpt"), ("best", "best.ckpt"), ("hpc", "hpc_ckpt_12.ckpt")):
        code, error = stage("test", "ProbeClassifier", "--ckpt_path", name)
        assert (code, f"--ckpt_path {tmp_path / file} holds a probe.ProbeRegressor" in error) == (2, True)
    (tmp_path / "last.ckpt").write_bytes(b"junk")
    code, error = stage("test", "ProbeRegressor", "--ckpt_path", "last")
    assert (code, f"{tmp_path / 'last.ckpt'} is not a readable checkpoint" in error) == (2, True)


class Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed.txt"),)


@pytest.mark.parametrize("slurm", [False, True])
def test_no_code_of_a_checkpoint_that_slurm_left_runs(
    slurm: bool, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job takes its own without being asked: it has to be read to know whose it is."""
    torch.save({"probe": Pickled()}, tmp_path / "hpc_ckpt_1.ckpt")
    if slurm:
        monkeypatch.setenv("SLURM_NTASKS", "1")
        monkeypatch.setenv("SLURM_JOB_NAME", "fit")
        monkeypatch.setenv("SLURM_JOB_ID", "17")
    options = () if slurm else ("--ckpt_path", "hpc")
    code, error = stage("fit", "ProbeClassifier", *options, "--weights_only", "false", settings=TINY)
    assert (code, "is not a readable checkpoint" in error) == (2, True)
    assert not Path("executed.txt").exists()


@pytest.mark.parametrize("name", ["last", "best", "hpc", "registry:mine"])
def test_a_word_that_names_no_checkpoint_is_one_line(name: str, stage: Stage, tmp_path: Path) -> None:
    code, error = stage("test", "ProbeClassifier", "--ckpt_path", name)
    assert code == 2
    (line,) = error.splitlines()
    assert line.startswith(f"error: --ckpt_path {name}: no ")
    assert not (tmp_path / "results.json").exists()


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
def test_a_first_fit_from_the_last_checkpoint_begins_anew(stage: Stage, tmp_path: Path) -> None:
    assert stage("fit", "ProbeClassifier", "--ckpt_path", "last", "--trainer.max_epochs", 1, settings=TINY)[0] == 0
    assert (tmp_path / "last.ckpt").exists()


def test_the_best_checkpoint_is_the_one_that_the_last_states_where_its_name_varies(
    stage: Stage, trained: Any, tmp_path: Path
) -> None:
    from probe.cli.config.checkpoint_paths import checkpoint_path

    trained("ProbeClassifier")
    callback = {"class_path": f"{BASE}.ModelCheckpoint", "init_args": {"dirpath": str(tmp_path), "filename": "{epoch}"}}
    config = {"ckpt_path": "best", "trainer": {"callbacks": [callback]}}
    assert checkpoint_path("test", config) == tmp_path / "best.ckpt"
