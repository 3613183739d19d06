"""Checkpoints and exports are whole after a kill, in folders that one run at a time writes to."""

import json
import multiprocessing
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

import probe
from extract.errors import UserError
from extract.utils import LOCK, remove_temporary_files
from extract.utils.files.processes import Process, this_process
from extract.utils.files.writing import temporary_name
from probe.models import AtomicCheckpointIO, use_atomic_checkpoints
from tests.extract.utils.test_locks import hold, other_run  # noqa: F401 (fixture)
from tests.probe.models.test_probes import stage, store  # noqa: F401 (fixtures)

Stage = Callable[..., tuple[int, str]]
ANOTHER_DISK = Path("/dev/shm")


def checkpoint(number: int) -> dict[str, Any]:
    return {"number": number, "weights": torch.full((500_000,), float(number))}


def save_for_ever(io: TorchCheckpointIO, file: Path, folder: Path) -> None:
    tempfile.tempdir = str(folder)
    torch.set_num_threads(1)
    for number in range(1_000_000):
        io.save_checkpoint(checkpoint(number), file)


@pytest.mark.skipif(not ANOTHER_DISK.is_dir(), reason="no second file system")
def test_a_kill_leaves_a_whole_checkpoint_with_temporary_files_on_another_disk(tmp_path: Path) -> None:
    """SIGKILL at random moments; Lightning's own way leaves an empty file after some of these kills."""
    file, rng = tmp_path / "best.ckpt", random.Random(0)
    AtomicCheckpointIO().save_checkpoint(checkpoint(0), file)
    for _ in range(8):
        with tempfile.TemporaryDirectory(dir=ANOTHER_DISK) as other_disk, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: the child starts none
            child = multiprocessing.get_context("fork").Process(
                target=save_for_ever, args=(AtomicCheckpointIO(), file, Path(other_disk))
            )
            before = file.stat().st_mtime_ns
            child.start()
            while file.stat().st_mtime_ns == before and child.is_alive():
                time.sleep(0.001)
            time.sleep(rng.random() / 30)
            child.kill()
            child.join()
        found = torch.load(file, weights_only=True)
        assert (found["weights"] == found["number"]).all()
    remove_temporary_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_a_checkpoint_takes_the_place_of_a_link_and_not_of_what_it_names(tmp_path: Path) -> None:
    """`last.ckpt` is a link to the best one after a run with `save_last: link`."""
    io = AtomicCheckpointIO()
    io.save_checkpoint({"number": 1}, tmp_path / "best.ckpt")
    (tmp_path / "last.ckpt").symlink_to("best.ckpt")
    io.save_checkpoint({"number": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True) == {"number": 1}
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"number": 2}


class OwnIO(TorchCheckpointIO):
    """A plugin of the user's."""


def plugin_of(plugins: Any) -> Any:
    trainer = lightning.Trainer(plugins=plugins, accelerator="cpu", logger=False, enable_checkpointing=False)
    use_atomic_checkpoints(trainer)
    return trainer.strategy.checkpoint_io


def test_a_plugin_of_the_user_stays() -> None:
    assert type(plugin_of(None)) is AtomicCheckpointIO
    assert type(plugin_of(OwnIO())) is OwnIO
    wrapped = plugin_of(AsyncCheckpointIO())
    assert (type(wrapped), type(wrapped.checkpoint_io)) == (AsyncCheckpointIO, AtomicCheckpointIO)
    assert type(plugin_of(AsyncCheckpointIO(OwnIO())).checkpoint_io) is OwnIO


def test_fit_writes_atomic_checkpoints_and_leaves_its_folder_clean(
    stage: Stage,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, locked = this_process(), []
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as patch:
        ended = Process(own.host, own.system, own.pid, own.started + 1)
        patch.setattr("extract.utils.files.writing.this_process", lambda: ended)
        partial = temporary_name(tmp_path / "a" / "best.ckpt")
    partial.write_bytes(b"half")
    (tmp_path / "a" / "mine.tmp").write_text("mine")
    (tmp_path / "a" / "README.md").write_text("mine")

    def save(io: AtomicCheckpointIO, state: Any, path: str, storage_options: Any = None) -> None:
        locked.append((tmp_path / "a" / LOCK).exists())
        saved(io, state, path, storage_options)

    saved = AtomicCheckpointIO.save_checkpoint
    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
    code, _ = stage("fit", "--trainer.max_epochs", 2)
    assert (code, locked and all(locked)) == (0, True)
    assert {"best.ckpt", "mine.tmp", "README.md"} <= {path.name for path in (tmp_path / "a").iterdir()}
    assert not partial.exists()
    assert not (tmp_path / "a" / LOCK).exists()
    assert (tmp_path / "a" / "README.md").read_text() == "mine"
    assert "README.md was not written by this software" in caplog.text


def test_a_second_fit_in_a_folder_is_refused(stage: Stage, tmp_path: Path, other_run: Process) -> None:  # noqa: F811
    (tmp_path / "a").mkdir()
    hold(tmp_path / "a", other_run)
    code, said = stage("fit")
    assert code == 2
    assert f"host {other_run.host}, pid {other_run.pid}" in said
    assert "or choose another ModelCheckpoint's dirpath" in said
    assert not list((tmp_path / "a").glob("*.ckpt"))
    assert (tmp_path / "a" / LOCK).exists()


def test_a_failed_fit_releases_its_folder(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fail(*_: object) -> None:
        raise UserError("no more")

    monkeypatch.setattr(ModelCheckpoint, "on_validation_end", fail)
    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", fail)
    assert stage("fit")[0] == 2
    assert not (tmp_path / "a" / LOCK).exists()


def trained(bias: float) -> probe.ProbeClassifier:
    """A probe with the record that its export needs, all weights one value."""
    made = probe.ProbeClassifier(8, 6, hidden=[4])
    for value in made.parameters():
        torch.nn.init.constant_(value, bias)
    llm = {"name": "x", "weights": "sha256:1", "layers": 2, "heads": 3, "hidden_size": 8, "dtype": "float32"}
    split = {"by": "sample", "sizes": {"train": 1}, "seed": 0}
    made.training_record = {"llm": llm, "store": "s", "target": "copy_paste", "split": split, "seen": [str(bias)]}
    return made


@pytest.mark.parametrize("failing", [0, 1])
def test_an_export_that_fails_leaves_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    probe.save_pretrained(trained(1.0), tmp_path)
    former = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    calls = iter(range(failing))

    def fsync(_: int) -> None:
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="cannot write"):
        probe.save_pretrained(trained(2.0), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == former


def test_an_export_keeps_a_readme_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    probe.save_pretrained(trained(1.0), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert json.loads((tmp_path / "probe.json").read_text())["class"] == "probe.ProbeClassifier"


def test_a_config_of_the_user_in_the_log_folder_stays(
    stage: Stage,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "a" / "config.yaml"
    file.parent.mkdir()
    options = ("--trainer.logger", "false", "--trainer.max_epochs", 1, "--trainer.callbacks", "[]")
    file.write_text("# mine\n")
    assert stage("fit", *options)[0] == 0
    assert file.read_text() == "# mine\n"
    assert f"{file} is no saved config of a run: it is left" in caplog.text
    file.write_text("# lightning.pytorch==2.0\n")
    assert stage("fit", *options)[0] == 0
    assert file.read_text().startswith("# lightning.pytorch==2.")
    assert "max_epochs: 1" in file.read_text()
