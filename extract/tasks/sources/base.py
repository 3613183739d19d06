"""Questions with a context and marked evidence, and where they come from."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.prompts import Span
from extract.utils import sha256


@dataclass(frozen=True)
class Passage:
    """A paragraph of a context.

    Attributes:
        title: Stands on a line of its own before the text and is never evidence; empty for none.
        text: The paragraph.
        evidence: Half-open character intervals of `text` that hold the supporting facts.

    """

    title: str
    text: str
    evidence: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Record:
    """A question, its gold answer and its context. `kind` and `level` are the dataset's own words, or empty."""

    id: str
    question: str
    answer: str
    passages: tuple[Passage, ...]
    kind: str = ""
    level: str = ""


@dataclass
class Loaded:
    """What a source gave.

    Attributes:
        records: The usable ones.
        refused: Ids of records left out, by reason.
        repaired: Ids of records used after a repair, by what was done.

    """

    records: list[Record] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    repaired: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, reason: str, name: str) -> None:
        """Leave a record out."""
        self.refused.setdefault(reason, []).append(name)

    def repair(self, what: str, name: str) -> None:
        """Note a repair."""
        self.repaired.setdefault(what, []).append(name)


class Source(ABC):
    """Where records come from."""

    @abstractmethod
    def load(self) -> Loaded:
        """All records, in a fixed order.

        Raises:
            UserError: the source is missing, or a record is malformed; the message says which.

        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What determines the records, for the store's manifest: settings, and hashes of files."""


def paths(files: str | list[str]) -> list[Path]:
    """Existing files.

    Raises:
        UserError: one is missing, or is a folder.

    """
    listed = [Path(file).expanduser() for file in ([files] if isinstance(files, str) else files)]
    if not listed:
        raise UserError("task source: no file; give the path of one at least")
    for path in listed:
        if path.is_dir():
            raise UserError(f"task source: {path} is a folder; give the file in it")
        if not path.is_file():
            raise UserError(f"task source: no file {path}")
    return listed


def hashes(files: list[Path]) -> dict[str, str]:
    """sha256 by file name, which says what was read wherever it lay."""
    return {path.name: sha256(path) for path in files}


def parse(text: str, where: str) -> Any:
    """JSON, or one line that says where it is not."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error})") from error


def read(path: Path) -> str:
    """A text file's content, which must be UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"task source: {path} is not UTF-8 text ({error.reason})") from error


def text_of(record: Any, key: str, where: str) -> str:
    """A record's string field, which must be there and hold more than space.

    Raises:
        UserError: naming the record and the field.

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
