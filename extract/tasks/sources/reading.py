"""Reading of records from files, with errors that name file, record and field."""

from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.utils import is_unicode, sha256, user_path


def existing_files(files: str | list[str]) -> list[Path]:
    """Paths of files, each checked to exist.

    Raises:
        UserError: one is missing, or is a folder.

    """
    listed = [user_path(file) for file in ([files] if isinstance(files, str) else files)]
    if not listed:
        raise UserError("task source: no file; give the path of one at least")
    for path in listed:
        if path.is_dir():
            raise UserError(f"task source: {path} is a folder; give the file in it")
        if not path.is_file():
            raise UserError(f"task source: no file {path}")
    return listed


def file_hashes(files: list[Path]) -> dict[str, str]:
    """sha256 of files by name, which identifies what was read wherever it was."""
    return {path.name: sha256(path) for path in files}


class MalformedRecord(Exception):
    """A record that is left out; the message is the reason, without the record's name."""


def readable(record: Any) -> Any:
    """A record as it was read.

    Raises:
        MalformedRecord: it could not be read.

    >>> readable({"id": "q7"})
    {'id': 'q7'}

    """
    if isinstance(record, MalformedRecord):
        raise record
    return record


def required_text(record: Any, key: str) -> str:
    """String field of a record, without whitespace around it.

    Raises:
        MalformedRecord: the field is missing, no string, blank, or no Unicode text.

    >>> required_text({"answer": " Oslo "}, "answer")
    'Oslo'

    """
    if not isinstance(record, dict):
        raise MalformedRecord(f"a {type(record).__name__} instead of an object with question, answer and context")
    if key not in record:
        raise MalformedRecord(f"no field '{key}'")
    text = unicode_text(record[key], key).strip()
    if not text:
        raise MalformedRecord(f"field '{key}' is empty")
    return text


def unicode_text(value: Any, key: str) -> str:
    """A field's value, which must be text.

    Raises:
        MalformedRecord: it is no string, or holds a lone surrogate.

    """
    if not isinstance(value, str):
        raise MalformedRecord(f"field '{key}' is a {type(value).__name__} instead of text")
    if not is_unicode(value):
        raise MalformedRecord(f"field '{key}' is not Unicode text")
    return value


def optional_text(record: dict[str, Any], key: str) -> str:
    """Field of a record as text; empty where it is missing or null.

    >>> optional_text({"level": 3}, "level"), optional_text({}, "level")
    ('3', '')

    """
    value = record.get(key)
    return "" if value is None else unicode_text(str(value), key)


def record_name(record: Any, key: str, place: str) -> str:
    """Name of a record, by which it is reported: its id, or its place where it has none.

    >>> record_name({"id": "q7"}, "id", "line 3"), record_name([], "id", "line 3")
    ('q7', 'line 3')

    """
    try:
        return required_text(record, key)
    except MalformedRecord:
        return place
