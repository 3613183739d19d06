"""Fields of saved probes: what a checkpoint or an export must hold, of which types."""

from typing import Any

import torch
from torch import Tensor

from extract.errors import UserError
from extract.store import check_identity
from extract.utils import check_form, count
from probe.models.baselines import KINDS

NUMBER = (int, float)
SPLIT = {"by": str, "fractions": [NUMBER], "seed": count()}
ORIGIN = {"llm": dict, "store": str, "target": str, "split": SPLIT}
"""Fields of a training record; that of an untrained probe is empty."""
TABLE = {"means": Tensor, "overall": Tensor}
BASELINE = {
    **{"target": str, "threshold": NUMBER, "static": Tensor},
    **dict.fromkeys(("step", "active", "inactive"), TABLE),
    **{"heads": (dict, type(None)), "thresholds": {}},
}
HEADS = {"weight": Tensor, "bias": Tensor, "alpha": NUMBER}


def check_origin(record: Any, where: str) -> None:
    """Refuse a probe's training record that lacks a field or has one of another type.

    Args:
        record: See `TrainedModule.training_record`.
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
        _check_baseline(one, f"{where}, probe, baselines, {number}")
    _check_wake_thresholds(checkpoint["probe"].get("wake_thresholds", {}), baselines, f"{where}, probe")


def _check_baseline(one: dict[str, Any], where: str) -> None:
    """Its ridge regression and, of copy-paste scores, the thresholds of all predictors that it has."""
    if one["heads"] is not None:
        check_form(one["heads"], HEADS, f"{where}, heads")
    if unknown := one.keys() - BASELINE.keys():
        raise UserError(f"{where}: '{min(map(str, unknown))[:40]}' is no field of a baseline")
    if one["target"] == "copy_paste":
        check_form(one["thresholds"], _thresholds(one), f"{where}, thresholds")


def _check_wake_thresholds(found: Any, baselines: list[dict[str, Any]], where: str) -> None:
    """The thresholds of heads that wake up, by offset: of the probe and of the offset's predictors."""
    check_form(found, dict, f"{where}, wake_thresholds")
    for k, thresholds in found.items():
        place = f"{where}, wake_thresholds, {k!s:.20}"
        if k not in range(len(baselines)):
            raise UserError(f"{place}: no offset that has baselines")
        check_form(thresholds, {"probe": NUMBER, **_thresholds(baselines[k])}, place)


def _thresholds(baseline: dict[str, Any]) -> dict[str, Any]:
    kinds = KINDS if baseline["heads"] is not None else KINDS[:-1]
    return dict.fromkeys(kinds, NUMBER)
