"""Fields of saved probes: what a checkpoint or an export must hold, of which types."""

from typing import Any

import torch
from torch import Tensor

from extract.errors import UserError
from extract.store import check_identity
from extract.utils import check_form, count

NUMBER = (int, float)
SPLIT = {"by": str, "fractions": [NUMBER], "seed": count()}
ORIGIN = {"llm": dict, "store": str, "target": str, "split": SPLIT}
"""Fields of a training record; that of an untrained probe is empty."""
TABLE = {"means": Tensor, "overall": Tensor}
BASELINE = {
    **{"target": str, "threshold": NUMBER, "static": Tensor},
    **dict.fromkeys(("step", "active", "inactive"), TABLE),
    "thresholds": dict,
}


def check_origin(record: Any, where: str) -> None:
    """Refuse a probe's training record that lacks a field or has one of another type.

    Args:
        record: See `TrainedOnRows.training_record`.
        where: Its place, for the message.

    Raises:
        UserError: naming the field.

    """
    check_form(record, dict, where)
    if not record:
        return
    check_form(record, ORIGIN, where)
    check_identity(record["llm"], f"{where}, llm")
    check_form(record.get("seen", []), [str], f"{where}, seen")
    check_form(record["split"].get("offset", 0), count(), f"{where}, split, offset")
    if record.get("excluded") is not None:
        check_form(record["excluded"], {"sink": count(), "local": count()}, f"{where}, excluded")


def check_weights(weights: Any, where: str) -> None:
    """Refuse weights that are no tensors, or hold NaN or infinite values.

    Args:
        weights: By name.
        where: Their place, for the message.

    Raises:
        UserError: naming the weight.

    """
    check_form(weights, dict, where)
    for name, value in weights.items():
        check_form(value, Tensor, f"{where}, {name}")
        if not torch.isfinite(value).all():
            raise UserError(f"{where}, {name}: NaN or infinite values; train the probe again")


def check_fields(checkpoint: Any, where: str) -> None:
    """Refuse a Lightning checkpoint that lacks what a probe's has.

    Args:
        checkpoint: As loaded.
        where: Its file, for the message.

    Raises:
        UserError: naming the field.

    """
    check_form(checkpoint, {"probe": {"class": str, "origin": dict}, "state_dict": dict}, where)
    check_form(checkpoint, {"hyper_parameters": dict}, where)
    for name in checkpoint["hyper_parameters"]:
        check_form(name, str, f"{where}, hyper_parameters")
    check_origin(checkpoint["probe"]["origin"], f"{where}, probe, origin")
    check_weights(checkpoint["state_dict"], f"{where}, state_dict")
    baselines = checkpoint["probe"].get("baselines", [])
    check_form(baselines, [BASELINE], f"{where}, probe, baselines")
    for number, one in enumerate(baselines):
        place = f"{where}, probe, baselines, {number}"
        check_form(list(one["thresholds"].values()), [NUMBER], f"{place}, thresholds")
        if one.get("heads") is not None:
            check_form(one["heads"], {"weight": Tensor, "bias": Tensor, "alpha": NUMBER}, f"{place}, heads")
        if unknown := one.keys() - BASELINE.keys() - {"heads"}:
            raise UserError(f"{place}: '{min(map(str, unknown))[:40]}' is no field of a baseline")
