"""Questions of your own with marked evidence: one JSON object a line, or a JSON list of them."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from extract.prompts import Span
from extract.tasks.sources.base import Source
from extract.tasks.sources.json_records import read_records
from extract.tasks.sources.reading import (
    MalformedRecord,
    existing_files,
    file_hashes,
    optional_text,
    readable,
    record_name,
    required_text,
)
from extract.tasks.sources.records import REPEATED, LoadedRecords, Passage, Record, join_files

BLANK_LINE = "\n\n"


class JsonLines(Source):
    """Questions from JSON Lines: `{"id", "question", "answer", "context", "evidence": [[start, end], …]}`.

    `context` is text; `evidence` holds half-open character intervals of it, counted in Unicode code points. The
    context goes into the prompt as it is; its blank lines divide it into passages, the units that may be cut. `kind`
    and `level` are optional. A line that is no such record is left out, by its id or number. A JSON list of such
    records is read, too.

    Args:
        files: One file, or several.

    """

    def __init__(self, files: str | list[str]) -> None:
        self.files = files

    def load(self) -> LoadedRecords:
        """The records of all files, in order; a malformed one is left out."""
        seen = set[str]()
        return join_files((path, _usable(read_records(path, path.name), seen)) for path in existing_files(self.files))

    def describe(self) -> dict[str, Any]:
        """Hashes of the files."""
        return {"class": "JsonLines", "files": file_hashes(existing_files(self.files))}


def _usable(records: Iterable[tuple[str, Any]], seen: set[str]) -> LoadedRecords:
    """Well-formed records; the others by reason. Their ids are added to those that earlier records have."""
    loaded = LoadedRecords()
    for place, raw in records:
        try:
            record = _record(readable(raw))
        except MalformedRecord as error:
            loaded.reject(str(error), record_name(raw, "id", place))
            continue
        if record.id in seen:
            loaded.reject(REPEATED, record.id)
        else:
            loaded.records.append(record)
        seen.add(record.id)
    return loaded


def _record(raw: Any) -> Record:
    name, question, answer = (required_text(raw, key) for key in ("id", "question", "answer"))
    required_text(raw, "context")
    context: str = raw["context"]
    passages = split_passages(context, _evidence(raw, context))
    return Record(name, question, answer, passages, optional_text(raw, "kind"), optional_text(raw, "level"))


def _evidence(raw: dict[str, Any], context: str) -> list[Span]:
    spans = raw.get("evidence")
    if not isinstance(spans, list) or not spans:
        raise MalformedRecord("no list 'evidence' of [start, end] characters")
    for span in spans:
        if not isinstance(span, list) or len(span) != 2 or not all(type(bound) is int for bound in span):
            raise MalformedRecord("evidence that is no [start, end] of characters")
        start, end = span
        if not 0 <= start < end <= len(context):
            raise MalformedRecord("evidence that is not within the context")
        if not context[start:end].strip():
            raise MalformedRecord("evidence that holds nothing but space")
    return sorted((start, end) for start, end in spans)


def split_passages(context: str, evidence: list[Span]) -> tuple[Passage, ...]:
    """Passages between blank lines that no evidence crosses; joined by blank lines they are the context again.

    >>> context = "Ada sings." + BLANK_LINE + "Bo left."
    >>> [passage.text for passage in split_passages(context, evidence=[(0, 10)])]
    ['Ada sings.', 'Bo left.']

    """
    breaks, at = [], context.find(BLANK_LINE)
    while at >= 0:
        if not any(start < at + len(BLANK_LINE) and end > at for start, end in evidence):
            breaks.append(at)
        at = context.find(BLANK_LINE, at + len(BLANK_LINE))
    bounds = [(a + len(BLANK_LINE), b) for a, b in pairwise([-len(BLANK_LINE), *breaks, len(context)])]
    return tuple(
        Passage("", context[low:high], tuple((a - low, b - low) for a, b in evidence if low <= a and b <= high))
        for low, high in bounds
    )
