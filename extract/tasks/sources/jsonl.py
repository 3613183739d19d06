"""Questions of your own with marked evidence: one JSON object a line."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.prompts import Span
from extract.tasks.sources.base import Source
from extract.tasks.sources.reading import existing_files, file_hashes, required_text
from extract.tasks.sources.records import LoadedRecords, Passage, Record
from extract.utils import parse_json, read_lines

BLANK_LINE = "\n\n"


class JsonLines(Source):
    """Questions from JSON Lines: `{"id", "question", "answer", "context", "evidence": [[start, end], …]}`.

    `context` is text; `evidence` holds half-open character intervals of it, counted in Unicode code points. The
    context goes into the prompt as it is; its blank lines divide it into passages, the units that may be cut. `kind`
    and `level` are optional.

    Args:
        files: One file, or several.

    """

    def __init__(self, files: str | list[str]) -> None:
        self.files = files

    def load(self) -> LoadedRecords:
        """The records of all files, in order."""
        loaded, seen = LoadedRecords(), set()
        for path in existing_files(self.files):
            for record in _records(path):
                if record.id in seen:
                    loaded.reject("repeated id", record.id)
                else:
                    loaded.records.append(record)
                seen.add(record.id)
        return loaded

    def describe(self) -> dict[str, Any]:
        """Hashes of the files."""
        return {"class": "JsonLines", "files": file_hashes(existing_files(self.files))}


def _records(path: Path) -> list[Record]:
    located = [(f"task source: {where}", line) for where, line in read_lines(path)]
    if not located:
        raise UserError(f"task source: {path} is empty")
    return [_record(parse_json(line, where), where) for where, line in located]


def _record(raw: Any, where: str) -> Record:
    name, question, answer = (required_text(raw, key, where) for key in ("id", "question", "answer"))
    required_text(raw, "context", where)
    context: str = raw["context"]
    passages = split_passages(context, _evidence(raw, context, f"{where} ({name})"))
    return Record(name, question, answer, passages, str(raw.get("kind", "")), str(raw.get("level", "")))


def _evidence(raw: dict[str, Any], context: str, where: str) -> list[Span]:
    spans = raw.get("evidence")
    if not isinstance(spans, list) or not spans:
        raise UserError(f"{where} has no list 'evidence' of [start, end] characters")
    for span in spans:
        if not isinstance(span, list) or len(span) != 2 or not all(type(bound) is int for bound in span):
            raise UserError(f"{where}: evidence {span} is no [start, end] of characters")
        start, end = span
        if not 0 <= start < end <= len(context):
            raise UserError(f"{where}: evidence {span} is not within the context of {len(context)} characters")
        if not context[start:end].strip():
            raise UserError(f"{where}: evidence {span} holds nothing but space")
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
