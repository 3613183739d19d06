"""Files of questions with their documents: one JSON object a line, or a JSON list of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.tasks.sources import (
    LoadedRecords,
    MalformedRecord,
    read_records,
    readable,
    record_name,
    required_text,
    unicode_text,
)
from extract.utils import digest
from probe.attribution.citations.documents import Document, as_documents


@dataclass(frozen=True)
class Question:
    """A question of a file.

    Attributes:
        number: Number of its record, from 1.
        name: Its id, or its place in the file.
        question: Its text.
        documents: The documents.
        answer: A text to attribute; None: the model answers.

    """

    number: int
    name: str
    question: str
    documents: tuple[Document, ...]
    answer: str | None

    @property
    def digest(self) -> str:
        """Hash of its content, by which a finished one is recognised."""
        return digest([self.question, [[one.title, one.text] for one in self.documents], self.answer])


def read_questions(path: Path, rejected: LoadedRecords) -> Iterator[Question]:
    """Questions of a file, one after the other: `{"question", "documents", "answer", "id"}`, the last two optional.

    Args:
        path: The file.
        rejected: Receives the names of records that are left out, by reason.

    Raises:
        UserError: the file holds no record, or is no JSON.

    """
    for number, (place, raw) in enumerate(read_records(path, path.name), start=1):
        try:
            yield _question(number, record_name(raw, "id", place), readable(raw))
        except MalformedRecord as error:
            rejected.reject(str(error), record_name(raw, "id", place))


def _question(number: int, name: str, raw: Any) -> Question:
    if not isinstance(raw, dict):
        raise MalformedRecord(f"a {type(raw).__name__} instead of an object with question and documents")
    if not isinstance(raw.get("documents"), list):
        raise MalformedRecord("no list 'documents' of texts or of {title, text}")
    try:
        documents = as_documents(raw["documents"])
    except UserError as error:
        raise MalformedRecord(str(error)) from error
    answer = None if raw.get("answer") is None else unicode_text(raw["answer"], "answer")
    if answer is not None and not answer.strip():
        raise MalformedRecord("field 'answer' is empty")
    return Question(number, name, required_text(raw, "question"), documents, answer)
