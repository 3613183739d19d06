"""Saved probes: Lightning checkpoints, and exports of a config file with safetensors."""

import hashlib
import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save

from extract.errors import UserError
from extract.llm import LLMIdentity
from extract.utils import (
    annotations,
    check_arguments,
    check_form,
    digest,
    hashed_json,
    public_name,
    read_hashed,
    remove_temporary_files,
    user_path,
    write_card,
    write_together,
)
from probe.models.base import Probe
from probe.models.saving.checkpoint_fields import check_fields, check_origin, check_weights
from probe.models.saving.checkpoint_io import check_checkpoint
from probe.models.saving.trained_module import TrainedModule
from probe.models.training_record import TrainedOnRows

CONFIG = "probe.json"
WEIGHTS = "probe.safetensors"
UNCHECKED = "{} carries no hash of its content, so that damage would not be noticed; a new one does"
"""Remark on a probe saved by an earlier version, or by Lightning alone."""


class SeveralProbes(UserError):
    """A saved module that is no single probe, such as probes of later steps."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a probe's Lightning checkpoint as plain values and tensors; no pickled code is executed.

    It is compared with its hash first; one without a hash, of an earlier version or of Lightning alone, is reported.

    Raises:
        UserError: no such file, not a checkpoint, a damaged one, not a probe's, or one that lacks a field.

    """
    file = user_path(path)
    if not file.is_file():
        raise UserError(f"no checkpoint at {path}; train one with: lightning fit -c configs/probe.yaml")
    if not check_checkpoint(file):
        rank_zero_info(UNCHECKED.format(path))
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # junk fails in torch.load in many ways, struct.error and KeyError among them
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable checkpoint ({reason}); train the probe again") from error
    if not isinstance(checkpoint, dict) or "probe" not in checkpoint:
        raise UserError(f"{path} is not a probe's checkpoint; `lightning fit -c configs/probe.yaml` makes one")
    check_fields(checkpoint, str(path))
    return checkpoint


def probe_class(name: str) -> type[TrainedModule]:
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
        known = {name: kind} if isinstance(kind, type) and issubclass(kind, TrainedModule) else {}
    else:
        known = {public_name(kind): kind for kind in _subclasses(TrainedModule)}
    if name not in known:
        raise UserError(f"checkpoint of class {name}, which is not a known probe; import {module} ({symbol}) first")
    return known[name]


def _subclasses(kind: type[TrainedModule]) -> list[type[TrainedModule]]:
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
    kind, saved = _saved(path)
    if not issubclass(kind, Probe):
        what = "several probes" if issubclass(kind, TrainedOnRows) else "no probe"
        raise SeveralProbes(f"{public_name(kind)} holds {what}; evaluate it with: lightning test …")
    return _ready(_build(kind, **saved), device, llm)


M = TypeVar("M", bound=TrainedModule)


def load_trained(
    wanted: type[M], path: str | Path, device: str | torch.device = "cpu", llm: LLMIdentity | None = None
) -> M:
    """Load a trained module that need not be a probe, in evaluation mode; see `load`.

    Args:
        wanted: Its class, or a base of it.
        path: A checkpoint of `lightning fit`.
        device: Of its weights.
        llm: Identity of the LLM it will be used on.

    Raises:
        UserError: no readable module of that class there, or it was trained for another LLM.

    """
    kind, saved = _saved(path)
    if not issubclass(kind, wanted):
        raise UserError(f"{path} holds a {public_name(kind)}, where a {public_name(wanted)} is needed")
    return _ready(_build(kind, **saved), device, llm)


def _ready(module: M, device: str | torch.device, llm: LLMIdentity | None) -> M:
    if llm is not None:
        module.check_llm(llm)
    return module.to(device).eval()


def _saved(path: str | Path) -> tuple[type[TrainedModule], dict[str, Any]]:
    """Class of a saved module, and the arguments of `_build`."""
    if user_path(path).is_dir():
        return _from_folder(user_path(path))
    checkpoint = read_checkpoint(path)
    record = checkpoint["probe"]
    settings = _plain(checkpoint["hyper_parameters"])
    parts = {"settings": settings, "weights": checkpoint["state_dict"], "record": record["origin"]}
    return probe_class(record["class"]), parts


def check_settings(kind: type[TrainedModule], settings: Mapping[str, Any], where: str) -> None:
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


def _build(kind: type[M], settings: dict[str, Any], weights: dict[str, Any], record: dict[str, Any]) -> M:
    name = public_name(kind)
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


def weights_digest(probe: torch.nn.Module) -> str:
    """SHA-256 of the trained weights, so that an interrupted run does not continue with another probe's."""
    raw = {name: value.cpu().reshape(-1).view(torch.uint8) for name, value in probe.state_dict().items()}
    return digest({name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in raw.items()})


def save_pretrained(probe: TrainedModule, folder: str | Path) -> None:
    """Export a probe or head weights as `probe.json` and `probe.safetensors` with a model card, the form to share.

    `probe.json` holds the hash of the weights (`weights_sha256`) and its own.
    """
    target = user_path(folder)
    target.mkdir(parents=True, exist_ok=True)
    weights = save({k: v.contiguous() for k, v in probe.state_dict().items()})
    config = {
        "class": public_name(type(probe)),
        "settings": _plain(probe.hparams),
        "origin": probe.training_record,
    }
    config["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    remove_temporary_files(target)
    write_together({target / WEIGHTS: weights, target / CONFIG: hashed_json(config, indent=2)})
    if line := write_card(target, probe.model_card("probe.save_pretrained", file=".")):
        rank_zero_info(line)


def push_to_hub(probe: TrainedModule, repo: str, private: bool = False) -> str:
    """Upload a probe with its model card to the Hugging Face hub; returns the address of the upload.

    Args:
        probe: A trained probe, or other trained weights.
        repo: Repository, such as `user/probe`; `probe.load` takes a downloaded folder of it.
        private: Whether a new repository is private.

    """
    from huggingface_hub import HfApi

    api = HfApi()
    name = str(api.create_repo(repo, private=private, exist_ok=True).repo_id)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(probe, folder)
        return str(api.upload_folder(folder_path=folder, repo_id=name))


def _from_folder(folder: Path) -> tuple[type[TrainedModule], dict[str, Any]]:
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no saved probe ({CONFIG}, {WEIGHTS})")
    config, hashed = read_hashed(folder / CONFIG, "copy or export the probe again")
    if not hashed:
        rank_zero_info(UNCHECKED.format(folder))
    try:
        data = (folder / WEIGHTS).read_bytes()
        if hashed and config["weights_sha256"] != hashlib.sha256(data).hexdigest():
            raise UserError(f"{folder / WEIGHTS} is not what {CONFIG} was written with; copy or export the probe again")
        weights = load_weights(data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder} holds no saved probe ({CONFIG}, {WEIGHTS}): {error}") from error
    check_form(config, {"class": str, "settings": dict, "origin": dict}, str(folder / CONFIG))
    check_origin(config["origin"], f"{folder / CONFIG}, origin")
    check_weights(weights, str(folder / WEIGHTS))
    parts = {"settings": config["settings"], "weights": weights, "record": config["origin"]}
    return probe_class(config["class"]), parts
