"""Provenance of a run: its command, versions, and hashes of its settings."""

import hashlib
import importlib.metadata
import json
import platform
import re
import shlex
import sys
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "pyarrow")


REMARKS = ("llm.name", "probe.llm.name", "store.store", "task.haystack", "task.source.files")
"""Settings that only name what a hash beside them identifies: two spellings of one thing make no difference."""


def first_difference(old: Any, new: Any, name: str = "") -> str | None:
    """The first setting that differs between two configs, named through all levels; None for equal ones.

    Remarks, such as a model's name, may differ: see `REMARKS`.

    Args:
        old: Plain values.
        new: Likewise.
        name: Where they are in a config.

    >>> first_difference({"task": {"seed": 0}}, {"task": {"seed": 7}})
    'task.seed: 0 there, 7 here'
    >>> first_difference({"llm": {"name": "a", "weights": "x"}}, {"llm": {"name": "b", "weights": "x"}})

    """
    if name in REMARKS or old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        keys = {**old, **new}
        below = (first_difference(old.get(key), new.get(key), f"{name}.{key}" if name else key) for key in keys)
        return next((found for found in below if found), None)
    values = f"{_shown(old)} there, {_shown(new)} here"
    return f"{name}: {values}" if name else values


def _shown(value: Any) -> str:
    """A value in a message: hashes are cut."""
    if value is None:
        return "none"
    text = str(value)
    return re.sub(r"[0-9a-f]{64}", lambda found: f"{found[0][:12]}…", text)


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
