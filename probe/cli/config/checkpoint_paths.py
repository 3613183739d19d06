"""The file that `--ckpt_path last`, `best` or `hpc` names, so that it is checked as a path is."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from extract.errors import UserError
from probe.cli.named_callbacks import listed_callbacks
from probe.cli.stopping.requeue import job
from probe.cli.stopping.stoppable import STOPPED_CHECKPOINT
from probe.models import read_checkpoint

HPC = re.compile(r"hpc_ckpt_(\d+)\.ckpt")
JOB = "slurm_job"
"""Key of a checkpoint that a SLURM job has left when it was stopped or requeued: the job's id."""


def checkpoint_path(stage: str, config: Mapping[str, Any]) -> Path | None:
    """Path of the checkpoint that a stage begins with; None for none.

    `fit` in a SLURM job that has started again goes on from what this job left when it was stopped, unless the one
    that the command names is newer. Lightning alone would load what any job left, into any stage.

    Args:
        stage: fit, validate, test or predict.
        config: Its parsed config in plain values.

    Raises:
        UserError: there is no such checkpoint. Only `fit --ckpt_path last` begins anew then, as Lightning does.

    """
    name, trainer = config.get("ckpt_path"), config.get("trainer") or {}
    root = Path(trainer.get("default_root_dir") or ".")
    own = _left(config, root) if stage == "fit" else None
    if own is None or not name:
        return _named(stage, str(name), config, root) if name else own
    named = None
    with suppress(UserError):  # what the job began with may be gone
        named = _named(stage, str(name), config, root)
    return named if named is not None and named.is_file() and _written(named) > _written(own) else own


def _named(stage: str, name: str, config: Mapping[str, Any], root: Path) -> Path | None:
    """The checkpoint that `--ckpt_path` names."""
    if name not in ("last", "best", "hpc") and not name.lower().startswith("registry"):
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
    """Whether this SLURM job has left a checkpoint when it was stopped or requeued."""
    return job() is not None and checkpoint.get(JOB) == job()


def _left(config: Mapping[str, Any], root: Path) -> Path | None:
    """The newest checkpoint that this SLURM job has left, at its requeueing or where SIGTERM stopped it."""
    if job() is None:
        return None
    stopped = (folder / STOPPED_CHECKPOINT for folder, _ in _model_checkpoints(config, root))
    files = sorted([*_hpc(root), *filter(Path.is_file, stopped)], key=_written, reverse=True)
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
    return max(files, key=_written, default=None)


def _written(file: Path) -> float:
    return file.stat().st_mtime
