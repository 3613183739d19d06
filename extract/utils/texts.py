"""Texts that users give: paths with `~`, text that is not Unicode, JSON."""

import json
from pathlib import Path
from typing import Any

from extract.errors import UserError


def user_path(path: str | Path) -> Path:
    """A path as the user means it: a leading `~` is their home folder.

    Raises:
        UserError: `~name` of a user who does not exist.

    >>> user_path("stores/niah").as_posix(), user_path("~/x") == Path.home() / "x"
    ('stores/niah', True)

    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such home folder; write the whole path") from error


def is_unicode(text: str) -> bool:
    r"""Whether a text can be encoded: a lone surrogate, half of a UTF-16 pair, is no character.

    >>> is_unicode("針"), is_unicode("\ud800")
    (True, False)

    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_json(text: str | bytes, **options: Any) -> Any:
    """Value of a JSON text.

    Args:
        text: The text, or its UTF-8 bytes.
        **options: Of `json.loads`.

    Raises:
        ValueError: it is no JSON, not UTF-8, or nested too deeply for Python's reader.

    >>> load_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply

    """
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, **options: Any) -> Any:
    """Value of a JSON file in UTF-8: see `load_json`."""
    return load_json(path.read_bytes(), **options)
