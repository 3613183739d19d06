"""The file that `--ckpt_path last`, `best` or `hpc` names, so that it is checked as a path is."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from extract.errors import UserError
from probe.cli.named_callbacks import listed_callbacks
from probe.cli.stopping.requeue import job
from probe.models import read_checkpoint

HPC = re.compile(r"hpc_ckpt_(\d+)\.ckpt")
JOB = "slurm_job"
"""Key of a checkpoint that a requeued SLURM job has left: the job's id."""


def checkpoint_path(stage: str, config: Mapping[str, Any]) -> Path | None:
    """Path of the checkpoint that a stage begins with; None for none.

    `fit` in a SLURM job that was requeued goes on from the checkpoint that this job has left, also where the command
    names the one that the job began with. Lightning alone would load the newest of any job into any stage.

    Args:
        stage: fit, validate, test or predict.
        config: Its parsed config in plain values.

    Raises:
        UserError: there is no such checkpoint. Only `fit --ckpt_path last` begins anew then, as Lightning does.

    """
    name, trainer = config.get("ckpt_path"), config.get("trainer") or {}
    root = Path(trainer.get("default_root_dir") or ".")
    if stage == "fit" and (own := _own_hpc(root)) is not None:
        return own
    if not name:
        return None
    if name not in ("last", "best", "hpc") and not str(name).lower().startswith("registry"):
        return Path(name)
    folders = {"last": _last, "best": _best}
    path = _newest_hpc(root) if name == "hpc" else folders[name](config, root) if name in folders else None
    if path is None and (stage, name) != ("fit", "last"):
        nothing = _NOTHING.get(name, "no model registry is supported")
        raise UserError(f"--ckpt_path {name}: {nothing}; give the checkpoint's path")
    return path


_NOTHING = {
    "last": "no last*.ckpt in the folder (dirpath) of a ModelCheckpoint of this config",
    "best": "no best checkpoint in the folder (dirpath) of this config's first ModelCheckpoint",
    "hpc": "no hpc_ckpt_*.ckpt in trainer.default_root_dir",
}


def left_by_this_job(checkpoint: Mapping[str, Any]) -> bool:
    """Whether this SLURM job has left a checkpoint when it was requeued."""
    return job() is not None and checkpoint.get(JOB) == job()


def _own_hpc(root: Path) -> Path | None:
    """The newest of those that this SLURM job has left."""
    files = _hpc(root) if job() is not None else []
    return next((file for file in files if left_by_this_job(read_checkpoint(file))), None)


def _newest_hpc(root: Path) -> Path | None:
    """The checkpoint that a requeued SLURM job wrote last."""
    return next(iter(_hpc(root)), None)


def _hpc(root: Path) -> list[Path]:
    """Checkpoints of requeued SLURM jobs, the newest first."""
    found = {int(match[1]): file for file in _checkpoints([root]) if (match := HPC.fullmatch(file.name))}
    return [found[number] for number in sorted(found, reverse=True)]


def _last(config: Mapping[str, Any], root: Path) -> Path | None:
    """The newest `last.ckpt` of all ModelCheckpoints."""
    files = _checkpoints(folder for folder, _ in _model_checkpoints(config, root))
    return _newest(file for file in files if re.match(rf"{ModelCheckpoint.CHECKPOINT_NAME_LAST}(-\d+)?", file.stem))


def _best(config: Mapping[str, Any], root: Path) -> Path | None:
    """The best checkpoint of the first ModelCheckpoint: by its file's name, else as the last checkpoint states it."""
    for folder, name in _model_checkpoints(config, root)[:1]:
        files = _checkpoints([folder])
        versions = rf"{re.escape(name or '')}(-v\d+)?"
        if name and (named := _newest(file for file in files if re.fullmatch(versions, file.stem))):
            return named
        if last := _last(config, root):
            states = read_checkpoint(last).get("callbacks", {})
            stated = [state["best_model_path"] for state in states.values() if state.get("best_model_path")]
            return next((Path(path) for path in stated if Path(path).is_file()), None)
    return None


def _model_checkpoints(config: Mapping[str, Any], root: Path) -> list[tuple[Path, str | None]]:
    """Folder and file name of each ModelCheckpoint; without `dirpath` its folder is that of a new run's log."""
    named = [config["checkpoint"]] if config.get("checkpoint") else []
    found = []
    for callback in [*named, *listed_callbacks(config.get("trainer") or {})]:
        if issubclass(resolve_name(callback["class_path"]), ModelCheckpoint):
            settings = callback.get("init_args") or {}
            found.append((Path(settings.get("dirpath") or root / "checkpoints"), settings.get("filename")))
    return found or [(root / "checkpoints", None)]


def _checkpoints(folders: Iterable[Path]) -> list[Path]:
    return [file for folder in folders for file in folder.glob("*.ckpt")]


def _newest(files: Iterable[Path]) -> Path | None:
    return max(files, key=lambda file: file.stat().st_mtime, default=None)
