"""Trainer switches that exclude a callback: the switch wins, with one line that says so."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import Checkpoint, DeviceStatsMonitor, LearningRateMonitor, ProgressBar
from lightning.pytorch.utilities import rank_zero_info

EXCLUDED: dict[str, tuple[type[Callback], ...]] = {
    "enable_checkpointing": (Checkpoint,),
    "enable_progress_bar": (ProgressBar,),
    "logger": (LearningRateMonitor, DeviceStatsMonitor),
}
"""By switch, the callbacks for which Lightning refuses to run when it is off."""
BAREBONES = {*EXCLUDED, "log_every_n_steps", "enable_model_summary", "num_sanity_val_steps"}
"""Settings that `barebones: true` turns off, and refuses where a config gives them."""


def apply_switches(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trainer arguments without the callbacks and settings that its switches exclude.

    A shipped config lists a progress bar, a checkpoint and a monitor of the learning rate; Lightning refuses them with
    `enable_progress_bar: false`, `enable_checkpointing: false`, `logger: false` or `barebones: true`. Of several
    progress bars the last is kept, so that one which is added replaces that of the config.

    Args:
        settings: Arguments of Lightning's Trainer, callbacks as objects.

    """
    bare = bool(settings.get("barebones"))
    found = {name: None if bare and name in BAREBONES else value for name, value in settings.items()}
    callbacks = found.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
    off = {name: name if not bare else "barebones" for name in EXCLUDED if bare or settings.get(name) in (False, [])}
    for switch, reason in off.items():
        dropped = [one for one in callbacks if isinstance(one, EXCLUDED[switch])]
        _report(dropped, f"trainer.{reason}: {str(bare).lower()}")
        callbacks = [one for one in callbacks if one not in dropped]
    bars = [one for one in callbacks if isinstance(one, ProgressBar)]
    _report(bars[:-1], f"another progress bar, {type(bars[-1]).__name__}" if bars else "")
    return {**found, "callbacks": [one for one in callbacks if one not in bars[:-1]]}


def _report(dropped: Sequence[Callback], reason: str) -> None:
    """Say which callbacks are left out."""
    if dropped:
        rank_zero_info(f"without {', '.join(type(one).__name__ for one in dropped)}: {reason}")
