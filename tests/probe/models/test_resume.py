"""A `fit` that is interrupted and resumed ends with the weights of an unbroken one, bit by bit."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from lightning import Callback, Trainer

from datamodules import Resumable
from datamodules.resumable import RANDOM
from probe.cli.config.checkpoint_paths import checkpoint_path
from probe.models import read_checkpoint
from tests.conftest import Run
from tests.helpers.signals import signal_at
from tests.helpers.slurm import Job
from tests.helpers.stores import make_store

PROBES: dict[str, tuple[object, ...]] = {
    "classifier": ("-c", "configs/probe.yaml"),
    "regressor": ("-c", "configs/regressor.yaml"),
    "offset_probes": ("-c", "configs/offset_probes.yaml", "--data.init_args.offsets", 2),
}
PLACES = {
    "batch": ("on_train_batch_start", 2, 1),
    "last_batch": ("on_train_batch_start", 2, 7),
    "validation": ("on_validation_batch_start", 2, 0),
    "epoch_end": ("on_train_epoch_end", 2, None),
    "first_epoch": ("on_train_batch_start", 0, 2),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=60)


class Fit:
    """`lightning fit` of a shipped config, made small, with checkpoints in `folder`."""

    def __init__(self, run: Run, store: Path, config: tuple[object, ...]) -> None:
        self.run, self.store, self.config = run, store, config

    def __call__(self, folder: Path, *args: object) -> tuple[int, str]:
        saver = {"dirpath": str(folder), "filename": "best", "monitor": "val/loss", "save_last": True}
        saver["enable_version_counter"] = False
        callbacks = [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver}]
        small = ("--model.init_args.hidden", "[16]", "--model.init_args.dropout", 0.3, "--model.init_args.lr", 0.05)
        schedule = ("--model.init_args.patience", 0, "--model.init_args.factor", 0.5)
        return self.run(
            *("fit", *self.config, "--store", self.store, *small, *schedule, "--data.init_args.batch_size", 32),
            *("--trainer.max_epochs", 5, "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
            *("--trainer.default_root_dir", folder, "--trainer.enable_progress_bar", "false"),
            *("--trainer.enable_model_summary", "false", "--trainer.callbacks", json.dumps(callbacks), *args),
        )


def same(first: Path, second: Path) -> None:
    """Two checkpoints hold the same weights, optimizer and schedule."""
    one, two = read_checkpoint(first), read_checkpoint(second)
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name
    assert one["lr_schedulers"] == two["lr_schedulers"]
    assert (one["epoch"], one["global_step"]) == (two["epoch"], two["global_step"])


@pytest.mark.parametrize(
    ("probe", "places"), [("classifier", tuple(PLACES)), ("regressor", ("batch",)), ("offset_probes", ("batch",))]
)
def test_a_stopped_fit_goes_on_as_if_it_had_not(
    probe: str, places: tuple[str, ...], run: Run, store: Path, tmp_path: Path
) -> None:
    """Stopped in the midst of an epoch, before its last batch, in its validation, at its end: all the same."""
    fit = Fit(run, store, PROBES[probe])
    assert fit(tmp_path / "whole")[0] == 0
    for name in places:
        folder, place = tmp_path / name, PLACES[name]
        code, said = fit(folder, "--trainer.callbacks+", signal_at(*place))
        assert (code, said.count("stopped by SIGTERM")) == (143, 1), (name, said)
        assert f"--ckpt_path {folder / 'stopped.ckpt'}" in said
        assert fit(folder, "--ckpt_path", folder / "stopped.ckpt")[0] == 0
        assert not (folder / "stopped.ckpt").exists()
        for file in ("best.ckpt", "last.ckpt"):
            same(tmp_path / "whole" / file, folder / file)


def test_each_process_has_its_own_random_state() -> None:
    before, states, expected = torch.get_rng_state(), [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(torch.get_rng_state())
        expected.append(float(torch.rand(())))
    for rank in (0, 1):
        module: Any = SimpleNamespace(
            _restored={RANDOM: {"cpu": torch.stack(states)}},
            trainer=SimpleNamespace(world_size=2),
            global_rank=rank,
            device=torch.device("cpu"),
        )
        Resumable.on_train_start(module)
        assert float(torch.rand(())) == expected[rank]
    torch.set_rng_state(before)


@pytest.mark.parametrize("place", ["batch", "last_batch"])
def test_a_job_that_slurm_requeues_goes_on_as_if_it_had_not(
    place: str, run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, the second time where the command names an older checkpoint; then it is preempted, by SIGTERM."""
    fit = Fit(run, store, PROBES["classifier"])
    assert fit(tmp_path / "whole")[0] == 0
    job, folder = Job(monkeypatch, tmp_path), tmp_path / "job"
    for number, options in enumerate(((), ("--ckpt_path", folder / "last.ckpt")), start=1):
        epoch, batch = PLACES[place][1] + number - 1, PLACES[place][2]
        requeued = signal_at(PLACES[place][0], epoch, batch, signal.SIGUSR1)
        code, said = fit(folder, "--trainer.callbacks+", requeued, *options)
        assert (code, said.count("stopped by SIGTERM"), said.count("go on with")) == (143, 1, 0), said
        assert job.asked() == ["requeue 17"] * number
        assert [file.name for file in folder.glob("hpc_*")] == [f"hpc_ckpt_{number}.ckpt"]
        assert not (folder / "stopped.ckpt").exists()
    assert fit(folder, "--trainer.callbacks+", signal_at("on_train_batch_start", 4, 3))[0] == 143
    assert {file.name for file in folder.glob("*.ckpt")} == {"best.ckpt", "last.ckpt", "stopped.ckpt"}
    assert fit(folder)[0] == 0
    for file in ("best.ckpt", "last.ckpt"):
        same(tmp_path / "whole" / file, folder / file)
    assert {file.name for file in folder.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}


def test_the_checkpoint_of_another_job_is_taken_only_where_it_is_named(
    run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Fit(run, store, PROBES["classifier"])
    job, folder = Job(monkeypatch, tmp_path), tmp_path / "job"
    assert fit(folder, "--trainer.callbacks+", signal_at(*PLACES["batch"], signal.SIGUSR1))[0] == 143
    left = read_checkpoint(folder / "hpc_ckpt_1.ckpt")
    assert left["slurm_job"] == "17"
    for seconds, name in ((-60, "hpc_ckpt_1.ckpt"), (60, "last.ckpt")):  # the newer one, as after a failed node
        now = (folder / "hpc_ckpt_1.ckpt").stat().st_mtime
        os.utime(folder / "last.ckpt", times=(now + seconds, now + seconds))
        config = {"ckpt_path": str(folder / "last.ckpt"), "trainer": {"default_root_dir": str(folder)}}
        assert checkpoint_path("fit", config) == folder / name
        assert checkpoint_path("test", config) == folder / "last.ckpt"
    job.become(18)
    short = ("--trainer.max_epochs", left["epoch"] + 1)
    for options, first in (((), 0), (("--ckpt_path", "hpc"), left["global_step"])):
        steps: list[int] = []
        monkeypatch.setattr(Steps, "seen", steps)
        assert fit(folder, "--trainer.callbacks+", "tests.probe.models.test_resume.Steps", *short, *options)[0] == 0
        assert (steps[0], (folder / "hpc_ckpt_1.ckpt").exists()) == (first, True)
    assert "slurm_job" not in read_checkpoint(folder / "last.ckpt")


class Steps(Callback):
    """Notes the number of each step."""

    seen: ClassVar[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note it."""
        self.seen.append(trainer.global_step)
