"""Saved probes: Lightning checkpoints, and exports of a config file with safetensors."""

import importlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.store import check_identity
from extract.utils import (
    annotations,
    check_arguments,
    check_form,
    count,
    public_name,
    read_json,
    user_path,
    write_bytes,
)
from probe.models.base import Probe
from probe.models.model_card import probe_card, write_card
from probe.models.training_record import TrainedOnRows

CONFIG = "probe.json"
WEIGHTS = "probe.safetensors"

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


class SeveralProbes(UserError):
    """A saved module that is no single probe, such as probes of later steps."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a probe's Lightning checkpoint as plain values and tensors; no pickled code is executed.

    Raises:
        UserError: no such file, not a checkpoint, or not a probe's, or one that lacks a field.

    """
    file = user_path(path)
    if not file.is_file():
        raise UserError(f"no checkpoint at {path}; train one with: lightning fit -c configs/probe.yaml")
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # junk fails in torch.load in many ways, struct.error and KeyError among them
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable checkpoint ({reason}); train the probe again") from error
    if not isinstance(checkpoint, dict) or "probe" not in checkpoint:
        raise UserError(f"{path} is not a probe's checkpoint; `lightning fit -c configs/probe.yaml` makes one")
    check_checkpoint(checkpoint, str(path))
    return checkpoint


def probe_class(name: str) -> type[TrainedOnRows]:
    """Class of a saved probe by its public name; classes outside this project must be imported before.

    Early checkpoints name a class of this project by its former module (`probe.classifier.ProbeClassifier`); only the
    last part of such a name counts.

    Raises:
        UserError: no such class is known.

    >>> probe_class("probe.ProbeClassifier").__name__, probe_class("probe.classifier.ProbeClassifier").__name__
    ('ProbeClassifier', 'ProbeClassifier')

    """
    module, _, symbol = name.rpartition(".")
    if module.partition(".")[0] == "probe":
        kind = getattr(importlib.import_module("probe"), symbol, None)
        known = {name: kind} if isinstance(kind, type) and issubclass(kind, TrainedOnRows) else {}
    else:
        known = {public_name(kind): kind for kind in _subclasses(TrainedOnRows)}
    if name not in known:
        raise UserError(f"checkpoint of class {name}, which is not a known probe; import {module} ({symbol}) first")
    return known[name]


def _subclasses(kind: type[TrainedOnRows]) -> list[type[TrainedOnRows]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _subclasses(child))]


def load(path: str | Path, device: str | torch.device = "cpu", llm: LLMIdentity | None = None) -> Probe:
    """Load a trained probe, in evaluation mode.

    Args:
        path: A checkpoint of `lightning fit`, or a folder that `save_pretrained` wrote.
        device: Of its weights.
        llm: Identity of the LLM (or a store's `identity`) it will be used on; a probe of another LLM is refused.

    Raises:
        UserError: no readable probe there, or it was trained for another LLM (both are named).

    """
    probe = _from_folder(user_path(path)) if user_path(path).is_dir() else _from_checkpoint(path)
    if llm is not None:
        probe.check_llm(llm)
    return probe.to(device).eval()


def _from_checkpoint(path: str | Path) -> Probe:
    checkpoint = read_checkpoint(path)
    settings = _plain(checkpoint["hyper_parameters"])
    return _build(checkpoint["probe"]["class"], settings, checkpoint["state_dict"], checkpoint["probe"]["origin"])


def check_settings(kind: type[TrainedOnRows], settings: Mapping[str, Any], where: str) -> None:
    """Refuse saved settings that a probe's class does not have, or that are out of range.

    Args:
        kind: The class.
        settings: Its arguments.
        where: Their place, for the message.

    Raises:
        UserError: naming the setting.

    """
    if unknown := settings.keys() - annotations(kind).keys():
        raise UserError(f"{where}: '{min(unknown)[:40]}' is no setting of {kind.__name__}")
    check_arguments(kind, settings, f"{where}: ")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments among the hyper-parameters; Lightning adds `_class_path` and `_instantiator`."""
    return {name: value for name, value in settings.items() if not name.startswith("_")}


def _build(name: str, settings: dict[str, Any], weights: dict[str, Any], record: dict[str, Any]) -> Probe:
    kind = probe_class(name)
    if not issubclass(kind, Probe):
        raise SeveralProbes(f"{name} holds several probes; evaluate it with: lightning test … --ckpt_path …")
    check_settings(kind, settings, f"a saved {name}")
    try:
        loaded = kind(**settings)
    except Exception as error:  # a setting of another type fails in as many ways as there are types
        raise UserError(f"the settings of a saved {name} do not make one: {error}") from error
    try:
        loaded.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the weights do not fit a {name} of these settings: {str(error).splitlines()[-1]}") from error
    loaded.training_record = record
    return loaded


def save_pretrained(probe: Probe, folder: str | Path) -> None:
    """Export a probe as `probe.json` and `probe.safetensors` with its model card, the form to share."""
    target = user_path(folder)
    target.mkdir(parents=True, exist_ok=True)
    kind, record = type(probe), probe.training_record
    config = {"class": public_name(kind), "settings": _plain(probe.hparams), "origin": record}
    save_file({k: v.contiguous() for k, v in probe.state_dict().items()}, target / WEIGHTS)
    write_bytes(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_card(target, probe_card(kind.__name__, record, "probe.save_pretrained", file="."))


def push_to_hub(probe: Probe, repo: str, private: bool = False) -> str:
    """Upload a probe with its model card to the Hugging Face hub; returns the address of the upload.

    Args:
        probe: A trained probe.
        repo: Repository, such as `user/probe`; `probe.load` takes a downloaded folder of it.
        private: Whether a new repository is private.

    """
    from huggingface_hub import HfApi

    api = HfApi()
    name = str(api.create_repo(repo, private=private, exist_ok=True).repo_id)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(probe, folder)
        return str(api.upload_folder(folder_path=folder, repo_id=name))


def _from_folder(folder: Path) -> Probe:
    try:
        config = read_json(folder / CONFIG)
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no saved probe ({CONFIG}, {WEIGHTS}): {error}") from error
    check_form(config, {"class": str, "settings": dict, "origin": dict}, str(folder / CONFIG))
    check_origin(config["origin"], f"{folder / CONFIG}, origin")
    check_weights(weights, str(folder / WEIGHTS))
    return _build(config["class"], config["settings"], weights, config["origin"])


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


def check_checkpoint(checkpoint: Any, where: str) -> None:
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
