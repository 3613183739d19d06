"""Any task with evidence: one JSON object a line."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.prompts import Span
from extract.tasks.sources.base import Loaded, Passage, Record, Source, hashes, parse, paths, read, text_of

BREAK = "\n\n"


class JsonLines(Source):
    """Lines of `{"id", "question", "answer", "context", "evidence": [[start, end], …]}`.

    `context` is text; `evidence` holds half-open character intervals of it, counted in Unicode code points. The
    context goes into the prompt as it is; its blank lines divide it into passages, the units that may be cut. `kind`
    and `level` may stand beside.

    Args:
        files: One file, or several.

    """

    def __init__(self, files: str | list[str]) -> None:
        self.files = files

    def load(self) -> Loaded:
        """The records of all files, in order."""
        loaded, seen = Loaded(), set()
        for path in paths(self.files):
            for record in _records(path):
                if record.id in seen:
                    loaded.refuse("repeated id", record.id)
                else:
                    loaded.records.append(record)
                seen.add(record.id)
        return loaded

    def describe(self) -> dict[str, Any]:
        """Hashes of the files."""
        return {"class": "JsonLines", "files": hashes(paths(self.files))}


def _records(path: Path) -> list[Record]:
    lines = [(number, line) for number, line in enumerate(read(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"task source: {path} is empty")
    located = ((f"task source: {path}, line {number}", line) for number, line in lines)
    return [_record(parse(line, where), where) for where, line in located]


def _record(raw: Any, where: str) -> Record:
    name, question, answer = (text_of(raw, key, where) for key in ("id", "question", "answer"))
    text_of(raw, "context", where)
    context: str = raw["context"]
    passages = split(context, _evidence(raw, context, f"{where} ({name})"))
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
            raise UserError(f"{where}: evidence {span} does not lie in the context of {len(context)} characters")
        if not context[start:end].strip():
            raise UserError(f"{where}: evidence {span} holds nothing but space")
    return sorted((start, end) for start, end in spans)


def split(context: str, evidence: list[Span]) -> tuple[Passage, ...]:
    """Passages between blank lines that no evidence crosses; joined by blank lines they are the context again."""
    breaks, at = [], context.find(BREAK)
    while at >= 0:
        if not any(start < at + len(BREAK) and end > at for start, end in evidence):
            breaks.append(at)
        at = context.find(BREAK, at + len(BREAK))
    bounds = [(a + len(BREAK), b) for a, b in pairwise([-len(BREAK), *breaks, len(context)])]
    return tuple(
        Passage("", context[low:high], tuple((a - low, b - low) for a, b in evidence if low <= a and b <= high))
        for low, high in bounds
    )
