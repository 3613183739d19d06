"""Paths of configs: `{store}`, environment variables, and paths relative to the config's own folder."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from extract.errors import UserError
from extract.utils import user_path, with_store_name

_PATH_KEY = re.compile(r"(\w+_)?(path|file|files|folder|dir|dirpath|stores?|haystack|ranking|static|trials|checkpoint)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_FOLDER: ContextVar[str] = ContextVar("folder of the config that is read", default="")
SAVED = "# lightning.pytorch=="
"""How a config begins that a run has saved or `--print_config` has printed; its paths are the run's."""

Keys = tuple[str, ...]


def is_path(keys: Keys) -> bool:
    """Whether a key's text is a path: by its name; an LLM's name may be one.

    >>> is_path(("data", "init_args", "task", "init_args", "haystack")), is_path(("llm", "init_args", "name"))
    (True, True)
    >>> is_path(("data", "class_path")), is_path(("data", "init_args", "task", "init_args", "texts", "needle"))
    (False, False)

    """
    last = keys[-1] if keys else ""
    return (last != "class_path" and bool(_PATH_KEY.fullmatch(last))) or (last == "name" and "llm" in keys)


def names_place(keys: Keys) -> bool:
    """Whether a key's text is a path or a part of one: a logger's name, the file name of checkpoints."""
    last = keys[-1] if keys else ""
    return is_path(keys) or last == "filename" or (last in ("name", "version") and "logger" in keys)


def resolve_places(config: Namespace) -> None:
    """Replace environment variables and `{store}` in a parsed config's paths, in place.

    Args:
        config: The stage's, with its `store`.

    Raises:
        UserError: a variable is not set, or the store's folder has no name.

    """
    config["store"] = _expanded(("store",), config["store"])  # before the keys that it is linked to
    _change(config, lambda keys, text: _expanded(keys, text) if is_path(keys) else text)
    _change(config, lambda keys, text: with_store_name(text, config["store"]) if names_place(keys) else text)


def _expanded(keys: Keys, text: str) -> str:
    """A path with the values of its environment variables; `~` too where Lightning itself would not replace it."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise UserError(f"{'.'.join(keys)}: the environment variable {name} of {text} is not set")
        return os.environ[name]

    found = _VARIABLE.sub(value, text)
    return str(user_path(found)) if found.startswith("~") and keys[-1].endswith(("dir", "dirpath")) else found


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Within it `relative_to_config` takes paths as relative to the folder of this config.

    Args:
        file: A file; a text that is YAML itself, or a saved config, leaves paths relative to the working folder.

    """
    path = Path(file) if "\n" not in file and len(file) < 4096 else Path()
    saved = path.is_file() and path.read_bytes().startswith(SAVED.encode())
    token = _FOLDER.set(str(path.parent) if path.is_file() and not saved else "")
    try:
        yield
    finally:
        _FOLDER.reset(token)


def relative_to_config(value: Any) -> Any:
    """Values of a config in which paths that begin with `./` or `../` are relative to the working folder.

    Args:
        value: As they are in the file that is read, where such paths are relative to the file's folder.

    """
    folder = _FOLDER.get()
    if folder in ("", "."):
        return value
    return _change(value, lambda keys, text: _joined(folder, text) if is_path(keys) else text)


def _joined(folder: str, text: str) -> str:
    """A path below a folder, if it is a relative one that says so.

    >>> _joined("conf", "./text.txt"), _joined("conf", "../text.txt"), _joined("conf", "stores/niah")
    ('conf/text.txt', 'text.txt', 'stores/niah')

    """
    dotted = text in (".", "..") or text.startswith(("./", "../"))
    return Path(os.path.normpath(Path(folder, text))).as_posix() if dotted else text


def _change(value: Any, change: Callable[[Keys, str], str], keys: Keys = ()) -> Any:
    """Apply a function to every text, in place where texts are in mappings; entries of a list have the list's key."""
    if isinstance(value, str):
        return change(keys, value)
    if isinstance(value, list):
        return [_change(inner, change, keys) for inner in value]
    entries = vars(value) if isinstance(value, Namespace) else value
    if isinstance(entries, Mapping):
        for name, inner in list(entries.items()):
            entries[name] = _change(inner, change, (*keys, str(name)))  # type: ignore[index]
    return value
