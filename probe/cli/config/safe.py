"""`--safe`: only known classes of this project, Lightning and torch are imported, for configs from elsewhere."""

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from jsonargparse import set_parsing_settings
from yaml import YAMLError, safe_load

from extract.errors import UserError
from extract.utils import check_yaml

TRUSTED = (
    *("extract", "extract.llm", "extract.pipeline", "extract.tasks", "extract.tasks.sources", "extract.generation"),
    *("datamodules", "probe", "probe.models", "probe.metrics", "probe.results", "probe.rag", "probe.rag.strategies"),
    *("probe.attribution", "probe.attribution.methods", "probe.diagnosis"),
    *("probe.rag.triggers", "probe.experiments.ablation", "probe.experiments.correlation"),
    *("probe.experiments.dynamism", "lightning.pytorch.callbacks", "lightning.pytorch.strategies"),
    *("lightning.pytorch.loggers", "lightning.pytorch.profilers", "lightning.pytorch.plugins"),
    *("lightning.pytorch.plugins.environments", "lightning.pytorch.accelerators"),
    *("torch.optim", "torch.optim.lr_scheduler", "torch.nn"),
)
"""Modules whose public classes a safe config may name."""
OWNERS = ("extract.", "datamodules.", "probe.", "lightning.", "torch.")
REFUSED = (
    "lightning.pytorch.callbacks.LambdaCallback",  # calls any function
    *(f"lightning.pytorch.loggers.{name}Logger" for name in ("Comet", "Lit", "MLFlow", "Wandb")),  # send data away
)
CODE_SWITCHES = {"trust_remote_code": True, "allow_pickle": True, "weights_only": False}
"""Settings by which data may run code, and the value that lets it."""


class Safe(argparse.Action):
    """The switch; it is not part of the config, and takes effect before any of that is read."""

    def __init__(self, option_strings: Any, **_: Any) -> None:
        about = "Allow only known classes of this project, Lightning and torch: for configs from elsewhere."
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=about)

    def __call__(self, *_: Any) -> None:
        """Nothing: `main` has found the switch before."""


def be_safe() -> None:
    """Let configs of this process name only known classes."""
    importable = sorted(path for path in known_classes() if "." in path)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=importable)


@cache
def known_classes() -> frozenset[str]:
    """Every name of the known classes: the public ones, those of their modules, and the bare ones."""
    found = set()
    for module in map(importlib.import_module, TRUSTED):
        for name in getattr(module, "__all__", vars(module)):
            kind = getattr(module, name, None)
            path = f"{module.__name__}.{name}"
            if inspect.isclass(kind) and kind.__module__.startswith(OWNERS) and path not in REFUSED:
                found |= {name, path, *_homes(kind)}
    return frozenset(found)


def _homes(kind: type) -> Iterator[str]:
    """Names of a class in the module that defines it and in those above that hold it."""
    parts = kind.__module__.split(".")
    for end in range(1, len(parts) + 1):
        module = ".".join(parts[:end])
        if getattr(sys.modules.get(module), kind.__name__, None) is kind:
            yield f"{module}.{kind.__name__}"


def check_classes(value: Any, key: str = "") -> None:
    """Refuse a config that names a class which is not known, before anything is imported.

    Args:
        value: Plain values as they are in a config or on the command line.
        key: Where they are.

    Raises:
        UserError: naming the key and the class.

    """
    if isinstance(value, Mapping):
        if "class_path" in value and str(value["class_path"]) not in known_classes():
            raise refusal(f"{key}.class_path" if key else "class_path", value["class_path"])
        for name, inner in value.items():
            check_classes(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            check_classes(inner, f"{key}.{number}" if key else str(number))


def check_command_line(argv: Sequence[str]) -> None:
    """Refuse a command line with a class that is not known; `check_classes` with the option's name.

    >>> check_command_line(["fit", "--trainer.callbacks", "[{class_path: os.system}]"])
    Traceback (most recent call last):
    extract.errors.UserError: trainer.callbacks.0.class_path: os.system is not one of the classes that --safe allows
    (this project's, Lightning's and torch's); read the config, and run it without --safe if you trust it

    """
    for option, following in zip(argv, (*argv[1:], ""), strict=True):
        name, stated, value = option.partition("=")
        key, value = name.removeprefix("--").removesuffix("+"), value if stated else following
        if key.endswith(".class_path"):
            check_classes({"class_path": value}, key.removesuffix(".class_path"))
        elif name.startswith("--") and value.startswith(("[", "{")):
            with suppress(YAMLError):
                check_yaml(value, key)
                check_classes(safe_load(value), key)


def refusal(key: str, path: Any) -> UserError:
    """The error for a class that is not known."""
    return UserError(
        f"{key}: {str(path)[:100]} is not one of the classes that --safe allows (this project's, Lightning's and "
        "torch's); read the config, and run it without --safe if you trust it"
    )


def check_switches(value: Any, key: str = "") -> None:
    """Refuse settings by which a model or a checkpoint runs code.

    Raises:
        UserError: naming the key.

    """
    for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        where = f"{key}.{name}" if key else str(name)
        if name in CODE_SWITCHES and inner is not None and bool(inner) is CODE_SWITCHES[name]:
            raise UserError(f"{where}: {inner} lets what is loaded run code, which --safe refuses")
        if isinstance(inner, Mapping | list | tuple):
            check_switches(inner, where)
