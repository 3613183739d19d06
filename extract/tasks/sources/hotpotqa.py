"""HotpotQA, and datasets of its format (2WikiMultihopQA, MuSiQue converted to it): files, or the hub dataset."""

from collections.abc import Iterable
from typing import Any

from extract.errors import UserError
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
    unicode_text,
)
from extract.tasks.sources.records import REPEATED, LoadedRecords, Record, join_files, join_sentences

Paragraphs = list[tuple[str, list[str]]]
"""Titles with their sentences."""


class HotpotQA(Source):
    """HotpotQA (Yang et al. 2018) from JSON files of the official format.

    A file is a list of records, or has one a line (JSON Lines). Records have `_id`, `question`, `answer`, `context`
    (`[title, [sentence, …]]` each) and `supporting_facts` (`[title, sentence index]` each), or the columns of the hub
    dataset. Flaws of the published files: a paragraph that is repeated
    with the same words is used once. A record is left out, by id, if a supporting fact names a missing title, a
    sentence beyond its paragraph, an empty sentence, or a title of two different paragraphs, since its evidence would
    be incomplete or ambiguous; so are the second record of one id, one with a field that is missing, empty or of
    another type, and a line that is not JSON.

    Args:
        files: One file, or several.

    """

    def __init__(self, files: str | list[str]) -> None:
        self.files = files

    def load(self) -> LoadedRecords:
        """The records of all files, in order."""
        seen = set[str]()
        return join_files(
            (path, usable_records(read_records(path, str(path)), seen)) for path in existing_files(self.files)
        )

    def describe(self) -> dict[str, Any]:
        """Hashes of the files."""
        return {"class": "HotpotQA", "files": file_hashes(existing_files(self.files))}


class HubHotpotQA(Source):
    """HotpotQA from the Hugging Face hub, whose records hold columns of titles and sentences.

    Args:
        name, config, split, revision: As `datasets.load_dataset` takes them.

    """

    def __init__(
        self,
        name: str = "hotpotqa/hotpot_qa",
        config: str | None = "distractor",
        split: str = "validation",
        revision: str | None = None,
    ) -> None:
        self.name, self.config, self.split, self.revision = name, config, split, revision

    def load(self) -> LoadedRecords:
        """The split's records."""
        import datasets

        try:
            rows = datasets.load_dataset(self.name, self.config, split=self.split, revision=self.revision)
        except Exception as error:  # hub, cache and format failures share no base class
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"task source: dataset '{self.name}' cannot be loaded ({reason})") from error
        return usable_records((f"{self.name} {self.split}, record {n}", row) for n, row in enumerate(rows))

    def describe(self) -> dict[str, Any]:
        """The dataset's name and version."""
        names = ("name", "config", "split", "revision")
        return {"class": "HubHotpotQA", **{name: getattr(self, name) for name in names}}


def official_record(row: dict[str, Any]) -> dict[str, Any]:
    """A record with the hub's columns in the official format; any other one as it is.

    >>> row = {"id": "q1", "context": {"title": ["Ada"], "sentences": [["Ada sings."]]}}
    >>> official_record(row | {"supporting_facts": {"title": ["Ada"], "sent_id": [0]}})["context"]
    [['Ada', ['Ada sings.']]]

    """
    context, facts = row.get("context"), row.get("supporting_facts")
    named = row if "_id" in row or "id" not in row else {**row, "_id": row["id"]}
    if not isinstance(context, dict) or not isinstance(facts, dict):
        return named
    return {
        **named,
        "context": _pairs(context, "title", "sentences"),
        "supporting_facts": _pairs(facts, "title", "sent_id"),
    }


def _pairs(columns: dict[str, Any], *names: str) -> Any:
    """Rows of two columns; None where they are no lists of one length."""
    first, second = (columns.get(name) for name in names)
    if not isinstance(first, list) or not isinstance(second, list) or len(first) != len(second):
        return None
    return [list(pair) for pair in zip(first, second, strict=True)]


def usable_records(records: Iterable[tuple[str, Any]], seen: set[str] | None = None) -> LoadedRecords:
    """Records of the official format whose evidence is exactly known; the others by reason.

    Args:
        records: Each with its place, by which one without an id is named.
        seen: Ids of earlier records, to which these are added.

    """
    loaded, seen = LoadedRecords(), set() if seen is None else seen
    for place, raw in records:
        row = official_record(raw) if isinstance(raw, dict) else raw
        name = record_name(row, "_id", place)
        if name in seen:
            loaded.reject(REPEATED, name)
            continue
        seen.add(name)
        try:
            loaded.records.append(_record(readable(row), loaded))
        except MalformedRecord as error:
            loaded.reject(str(error), name)
    return loaded


def _record(raw: Any, loaded: LoadedRecords) -> Record:
    name, question, answer = (required_text(raw, key) for key in ("_id", "question", "answer"))
    stated = _paragraphs(raw)
    paragraphs = list(dict.fromkeys((title, tuple(sentences)) for title, sentences in stated))
    if len(paragraphs) < len(stated):
        loaded.repair("repeated paragraph used once", name)
    facts = _facts(raw)
    if reason := _flaw(paragraphs, facts):
        raise MalformedRecord(reason)
    passages = tuple(
        join_sentences(title, sentences, [i for t, i in facts if t == title]) for title, sentences in paragraphs
    )
    kind, level = optional_text(raw, "type"), optional_text(raw, "level")
    return Record(name, question, answer, tuple(p for p in passages if p.text), kind, level)


def _paragraphs(raw: dict[str, Any]) -> Paragraphs:
    if "context" not in raw:
        raise MalformedRecord("no field 'context'")
    context = raw["context"]
    if not isinstance(context, list) or not all(_is_paragraph(item) for item in context):
        raise MalformedRecord("field 'context' is no list of [title, [sentence, …]]")
    paragraphs = [(title.strip(), [sentence.strip() for sentence in sentences]) for title, sentences in context]
    if not any(any(sentences) for _, sentences in paragraphs):
        raise MalformedRecord("field 'context' is empty")
    for title, sentences in paragraphs:
        unicode_text("".join([title, *sentences]), "context")
    return paragraphs


def _is_paragraph(item: Any) -> bool:
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[0], str):
        return False
    return isinstance(item[1], list | tuple) and all(isinstance(sentence, str) for sentence in item[1])


def _facts(raw: dict[str, Any]) -> list[tuple[str, int]]:
    facts = raw.get("supporting_facts")
    if not isinstance(facts, list):
        raise MalformedRecord("no list 'supporting_facts'")
    for fact in facts:
        shaped = isinstance(fact, list | tuple) and len(fact) == 2
        if not shaped or not isinstance(fact[0], str) or not isinstance(fact[1], int):
            raise MalformedRecord("supporting fact that is no [title, sentence index]")
    return list(dict.fromkeys((title.strip(), index) for title, index in facts))


def _flaw(paragraphs: list[tuple[str, tuple[str, ...]]], facts: list[tuple[str, int]]) -> str | None:
    """Why a record's evidence is not exactly known."""
    if not facts:
        return "no supporting fact"
    for title, index in facts:
        paragraphs_of_title = [sentences for name, sentences in paragraphs if name == title]
        if not paragraphs_of_title:
            return "supporting fact names a missing title"
        if len(paragraphs_of_title) > 1:
            return "supporting fact names a title of two paragraphs"
        if not 0 <= index < len(paragraphs_of_title[0]):
            return "supporting fact's sentence index is out of range"
        if not paragraphs_of_title[0][index]:
            return "supporting fact is an empty sentence"
    return None
