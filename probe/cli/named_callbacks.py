"""Callbacks with a key of their own in a config, so that one setting of theirs is changed without copying a list."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from extract.pipeline import ScoreWriter
from probe.rag import RagCallback
from probe.results import Artifacts

NAMED: dict[str, tuple[type[Callback], str]] = {
    "checkpoint": (Checkpoint, "Which checkpoints `fit` saves, and where."),
    "lr_monitor": (LearningRateMonitor, "What is logged of the learning rate."),
    "progress_bar": (ProgressBar, "The progress bar."),
    "artifacts": (Artifacts, "Where the results of `test` go."),
    "writer": (ScoreWriter, "How `predict` writes the score store."),
    "rag": (RagCallback, "Masked RAG: in `test` probe.rag.RagEvaluation, in `fit` probe.rag.RagValidation."),
}
"""Type and help by key, in the order in which the Trainer runs them, before those of `trainer.callbacks`."""


def add_named_callbacks(parser: LightningArgumentParser) -> None:
    """Add the keys to a stage's parser; each is optional.

    Lightning's `add_lightning_class_args` would give the Trainer a None for a key that is not used.
    """
    for key, (kind, about) in NAMED.items():
        parser.add_subclass_arguments(kind, key, required=False, help=about)


def listed_callbacks(trainer: Mapping[str, Any]) -> list[Any]:
    """Entries of `trainer.callbacks`, which may be one callback or none."""
    listed = trainer.get("callbacks") or []
    return listed if isinstance(listed, list) else [listed]


def leave_out_listed(config: Any) -> None:
    """Set a key to null whose kind of callback `trainer.callbacks` holds itself: the list wins, with one line.

    A ModelCheckpoint of the list replaces that of `checkpoint:` only if it monitors the same metric; with another one
    both run.

    Args:
        config: The parsed config of a stage; changed in place.

    """
    listed = listed_callbacks(config["trainer"])
    found = {key: name for key in NAMED if config.get(key) and (name := _replacement(key, config[key], listed))}
    for key in found:
        config[key] = None
    if found:
        rank_zero_info(f"trainer.callbacks holds {', '.join(found.values())}: without {', '.join(found)} of the config")


def _replacement(key: str, named: Any, listed: list[Any]) -> str:
    """Name of the first callback of a list that takes a key's place; empty if there is none."""
    for one in listed:
        kind = resolve_name(one["class_path"])
        if not isinstance(kind, type) or not issubclass(kind, NAMED[key][0]):
            continue
        if key != "checkpoint" or _monitor(one) == _monitor(named):
            return kind.__name__
    return ""


def _monitor(callback: Any) -> Any:
    return (callback.get("init_args") or {}).get("monitor")


def named_callbacks(objects: Mapping[str, Any]) -> list[Callback]:
    """The callbacks of the keys that are used, in their order."""
    return [objects[key] for key in NAMED if objects.get(key) is not None]
