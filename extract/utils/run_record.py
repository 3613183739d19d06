"""Provenance of a run: its command, versions, and hashes of its settings."""

import hashlib
import importlib.metadata
import json
import platform
import shlex
import sys
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "pyarrow")


def first_difference(old: Any, new: Any, name: str = "") -> str:
    """The first setting that differs between two configs, named through all levels.

    >>> first_difference({"task": {"seed": 0}}, {"task": {"seed": 7}})
    'task.seed: 0 there, 7 here'

    """
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        return first_difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    return f"{name}: {old} there, {new} here" if name else f"{old} there, {new} here"


def command() -> str:
    """Command line of this process, as a user would type it."""
    return shlex.join(["lightning", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, in hex: the order of keys does not matter.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True

    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
