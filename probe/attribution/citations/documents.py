"""Documents of a question: given as texts, or as titles with texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extract.errors import UserError
from extract.utils import is_unicode


@dataclass(frozen=True)
class Document:
    """A document of the context; its title, if any, precedes the text in the prompt and is no source."""

    text: str
    title: str = ""


Documents = Sequence[str | Mapping[str, str] | Document]
"""Documents as users give them: texts, or `{"title", "text"}`."""


def as_documents(documents: Documents) -> tuple[Document, ...]:
    """Documents of texts or of `{"title", "text"}`.

    Raises:
        UserError: there is none, or one is no text, has other keys, or is blank.

    >>> as_documents(["Ada sings.", {"title": "Bo", "text": "Bo left."}])
    (Document(text='Ada sings.', title=''), Document(text='Bo left.', title='Bo'))
    >>> as_documents([" "])
    Traceback (most recent call last):
    extract.errors.UserError: document 1 has no text; leave it out

    """
    if isinstance(documents, str | Mapping) or not isinstance(documents, Sequence):
        raise UserError(f"documents: a list of texts or of {{title, text}}, not a {type(documents).__name__}")
    if not documents:
        raise UserError("no documents: give the texts that the answer may rest on")
    return tuple(_document(number, one) for number, one in enumerate(documents))


def _document(number: int, given: Any) -> Document:
    if isinstance(given, Document):
        given = {"title": given.title, "text": given.text}
    fields = given if isinstance(given, Mapping) else {"text": given}
    if unknown := set(fields) - {"title", "text"}:
        raise UserError(f"document {number + 1} has the key {min(map(repr, unknown))}; a document has title and text")
    title, text = fields.get("title"), fields.get("text", "")
    for value in (text, "" if title is None else title):
        if not isinstance(value, str):
            raise UserError(f"document {number + 1} is a {type(value).__name__}; give a text or {{title, text}}")
        if not is_unicode(value):
            raise UserError(f"document {number + 1} is not Unicode text (a lone surrogate)")
    if not text.strip():
        raise UserError(f"document {number + 1} has no text; leave it out")
    return Document(text, title or "")
