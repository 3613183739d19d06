"""Reading of records from files, with errors that name file, record and field."""

from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.utils import load_json, sha256, user_path


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


def parse_json(text: str, where: str) -> Any:
    """Value of a JSON text.

    Raises:
        UserError: it is no JSON; `where` names the text.

    >>> parse_json("[1]", "mine.jsonl, line 1")
    [1]

    """
    try:
        return load_json(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error})") from error


def read_text(path: Path) -> str:
    """Content of a UTF-8 text file.

    Raises:
        UserError: it is not UTF-8.

    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"task source: {path} is not UTF-8 text ({error.reason})") from error


def required_text(record: Any, key: str, where: str) -> str:
    """String field of a record, without whitespace around it.

    Raises:
        UserError: the field is missing, no string or blank; names the record and the field.

    >>> required_text({"answer": " Oslo "}, "answer", "record 0")
    'Oslo'

    """
    if not isinstance(record, dict):
        raise UserError(f"{where} is a {type(record).__name__}, not an object with question, answer and context")
    if key not in record:
        raise UserError(f"{where} has no field '{key}'; there is {', '.join(map(str, record)) or 'nothing'}")
    value = record[key]
    if not isinstance(value, str):
        raise UserError(f"{where}: field '{key}' is a {type(value).__name__}, not text")
    if not value.strip():
        raise UserError(f"{where}: field '{key}' is empty")
    return value.strip()
