"""What a run records of itself: command, versions, and hashes of its settings."""

import hashlib
import importlib.metadata
import json
import platform
import shlex
import sys
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "pyarrow")


def first_difference(old: Any, new: Any, name: str = "") -> str:
    """The first setting that differs, named through all levels."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        return first_difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    return f"{name}: {old} there, {new} here" if name else f"{old} there, {new} here"


def command() -> str:
    """The command line that made this process, as a user would type it."""
    return shlex.join(["lightning", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions that a reader of the store may want to know."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
