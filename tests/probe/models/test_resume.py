"""A `fit` that is interrupted and resumed ends with the weights of an unbroken one, bit by bit."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules import Resumable
from datamodules.resumable import RANDOM
from probe.models import read_checkpoint
from tests.conftest import Run
from tests.helpers.signals import signal_at
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
    """SLURM's signal comes in the midst of a step; Lightning saves, requeues, and resumes by itself."""
    fit = Fit(run, store, PROBES["classifier"])
    assert fit(tmp_path / "whole")[0] == 0
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    # SLURM ends the job's processes when it is requeued.
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\nkill -TERM $PPID\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    slurm = {"JOB_ID": "17", "JOB_NAME": "fit", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    requeued = signal_at(*PLACES[place], signal.SIGUSR1)
    code, said = fit(tmp_path / "job", "--trainer.callbacks+", requeued)
    assert (code, said.count("stopped by SIGTERM")) == (143, 1), said
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    assert (tmp_path / "job" / "hpc_ckpt_1.ckpt").is_file()
    (tmp_path / "job" / "stopped.ckpt").unlink()
    assert fit(tmp_path / "job")[0] == 0
    for file in ("best.ckpt", "last.ckpt"):
        same(tmp_path / "whole" / file, tmp_path / "job" / file)
