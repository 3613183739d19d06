"""Texts that users give: paths with `~` or a store's name, text that is not Unicode."""

import os
from collections.abc import Sequence
from pathlib import Path

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


STORE = "{store}"
"""Stands in a path for the name of the score store's folder."""


def with_store_name(path: str, store: str | Path) -> str:
    """A path in which `{store}` is replaced by the name of a score store's folder.

    Args:
        path: The path, with or without `{store}`.
        store: The store; its name is the last part of its absolute path, so that `.` and `..` are folders' names, too.

    Raises:
        UserError: the folder has no name, which is so of `/` and of an empty text.

    >>> with_store_name("ckpts/{store}/classifier", "stores/demo-niah/")
    'ckpts/demo-niah/classifier'

    """
    if STORE not in path:
        return path
    name = Path(os.path.normpath(Path.cwd() / user_path(store))).name if str(store) else ""
    if not name:
        raise UserError(f"--store '{store}': this folder has no name, which {path} needs; choose another folder")
    return path.replace(STORE, name)


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


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, for a message.

    >>> shortened(["a", "b"]), shortened(["a", "b", "c"], most=2)
    ('a, b', 'a, b, …')

    """
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
