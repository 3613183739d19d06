"""Records of a file, one after the other: items of a JSON list, or one record a line (JSON Lines), whichever it is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from extract.errors import UserError
from extract.tasks.sources.reading import MalformedRecord
from extract.utils import parse_json

MOST_RECORD = 2**26
"""Size of a record: bytes of a line, characters of an item of a list."""
CHUNK = 2**20
"""Characters of a list that are read together."""
_FIRST_LINE = 2**20
"""Bytes of a first line that may be a record though it is a list; longer ones are lists of records."""
_SPACE = re.compile(r"[ \t\r\n]*")
# Finds the end of an item without making its values, so that an item of odd numbers can be left out by itself.
_EXTENT = json.JSONDecoder(object_pairs_hook=len, parse_int=len, parse_float=len, parse_constant=len)


def read_records(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Records of a JSON list or of JSON Lines, each after its place; one that cannot be read is a `MalformedRecord`.

    At most one record and a chunk are in memory.

    Args:
        path: The file.
        name: Of the file in places.

    Raises:
        UserError: the file holds no record, or a list that is cut off or no JSON.

    """
    is_list, found = _is_list(path), False
    texts, kind = (_items(path), "record") if is_list else (_lines(path), "line")
    for number, text in texts:
        found = True
        yield f"{name}, {kind} {number}", text if isinstance(text, MalformedRecord) else _parsed(text)
    if not found:
        raise UserError(
            f"task source: {path} {'holds no list of records, but an empty one' if is_list else 'is empty'}"
        )


def _parsed(text: str) -> Any:
    try:
        return parse_json(text, "it", surrogates=True)
    except ValueError:
        return MalformedRecord("not JSON")


def _is_list(path: Path) -> bool:
    """Whether a file is one JSON list; a first line that is a list of its own, before others, is a line."""
    with path.open("rb") as file:
        first = b""
        while not first and (line := file.readline(_FIRST_LINE)):
            first = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not first.startswith(b"["):
            return False
        others = line.endswith(b"\n") and any(rest.strip() for rest in iter(lambda: file.read(CHUNK), b""))
        return not others or isinstance(_parsed(first.decode(errors="replace")), MalformedRecord)


def _lines(path: Path) -> Iterator[tuple[int, str | MalformedRecord]]:
    """Lines of a file that are not blank, by number from 1."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_RECORD + 1), b""), start=1):
            if len(line) > MOST_RECORD:
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = file.readline(MOST_RECORD)
                yield number, MalformedRecord(f"longer than {MOST_RECORD:,} bytes")
            elif line.strip() not in (b"", b"\xef\xbb\xbf"):
                yield number, _decoded(line)


def _decoded(line: bytes) -> str | MalformedRecord:
    try:
        return line.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return MalformedRecord("not UTF-8 text")


def _items(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a list's items, by number from 0."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        window, number = _Window(file, path), 0
        window.take("[")
        while window.peek() != "]" or number:
            yield number, window.item(number)
            number += 1
            if window.peek() != ",":
                break
            window.take(",")
        window.take("]")
        if window.peek():
            raise UserError(f"task source: {path} is not JSON (more text after its list of {number} records)")


class _Window:
    """The part of a text file that is in memory: from the current place on."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at = "", 0

    def _more(self) -> bool:
        """Read on: as much again as is there, so that a long item is not tried for each chunk."""
        try:
            read = self._file.read(max(CHUNK, len(self._text) - self._at))
        except UnicodeDecodeError as error:
            raise UserError(f"task source: {self._path} is not UTF-8 text ({error.reason})") from error
        self._text, self._at = self._text[self._at :] + read, 0
        return bool(read)

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, mark: str) -> None:
        """Go beyond a character that must come next."""
        if (found := self.peek()) != mark:
            what = f"'{found}'" if found else "the end of the file"
            raise UserError(f"task source: {self._path} is not JSON ('{mark}' is expected, not {what})")
        self._at += 1

    def item(self, number: int) -> str:
        """Text of the item that comes next."""
        self.peek()
        while True:
            end, wrong = self._extent()
            # What ends with the window may go on after it: `0` or `0.` as `0.5`.
            if 0 <= end < len(self._text) and self._text[end:].lower() not in (".", "e", "e+", "e-"):
                break
            if len(self._text) - self._at > MOST_RECORD:
                wrong = f"it has more than {MOST_RECORD:,} characters, or {wrong or 'does not end'}"
            elif self._more():
                continue
            raise UserError(f"task source: {self._path}, record {number}, is not JSON ({wrong or 'cut off'})")
        text, self._at = self._text[self._at : end], end
        return text

    def _extent(self) -> tuple[int, str]:
        """Where the next item ends; -1 and why, where it is no whole item."""
        try:
            return _EXTENT.raw_decode(self._text, self._at)[1], ""
        except RecursionError:
            return -1, "too many levels of lists and objects"
        except ValueError as error:
            return -1, str(error).partition(":")[0]
