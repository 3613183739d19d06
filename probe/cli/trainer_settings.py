"""Ranges of the Trainer's settings that Lightning itself does not check, and stages that would do nothing."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

from extract.errors import UserError
from extract.utils import NonNegativeFloat, NonNegativeInt, PositiveInt, Range, check_value

MOST_PROCESSES = max(64, 4 * (os.cpu_count() or 1))
"""Most processes of one machine: each loads the model."""
FROM_MINUS_ONE = Annotated[int, Range(-1, 2**31 - 1)]
TRAINER: dict[str, Any] = {
    **dict.fromkeys(("max_epochs", "max_steps", "num_sanity_val_steps"), FROM_MINUS_ONE),
    **dict.fromkeys(("min_epochs", "min_steps", "log_every_n_steps"), NonNegativeInt),
    "reload_dataloaders_every_n_epochs": NonNegativeInt,
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"), PositiveInt),
    **dict.fromkeys(("gradient_clip_val", "overfit_batches", "val_check_interval"), NonNegativeFloat),
    "devices": Annotated[int, Range(-1, MOST_PROCESSES)],
}
"""Types of settings; those that are not named are Lightning's to check."""
BATCHES = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
"""Part of a setting's name (`limit_…_batches`) by stage."""


def check_trainer(stage: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings of the Trainer out of range, and a stage without a batch.

    Args:
        stage: Which stage is run.
        settings: The Trainer's.

    Raises:
        UserError: naming the key.

    """
    for name, hint in TRAINER.items():
        value = settings.get(name)
        if name == "devices" and isinstance(value, str) and value.lstrip("-").isdigit():
            value = int(value)  # Lightning's own form of a number of devices
        check_value(value, hint, f"trainer.{name}")
    for name in ("devices", "val_check_interval"):
        if settings.get(name) in (0, "0"):
            raise UserError(f"trainer.{name}: 0, at least 1 is expected")
    limit = f"limit_{BATCHES[stage]}_batches"
    if settings.get(limit) == 0:
        raise UserError(f"trainer.{limit}: 0, so that `lightning {stage}` would do nothing")
