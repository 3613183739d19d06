"""Texts that users give: paths with `~`, text that is not Unicode."""

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
