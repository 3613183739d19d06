"""Records: questions with a context and marked evidence."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from extract.errors import UserError
from extract.prompts import Span
from extract.utils import shortened


@dataclass(frozen=True)
class Passage:
    """A paragraph of a context.

    Attributes:
        title: On a line of its own before the text, never evidence; empty for none.
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
class LoadedRecords:
    """Records of a source, and those that were rejected or repaired.

    Attributes:
        records: The usable ones.
        rejected: Ids of records left out, by reason.
        repaired: Ids of records used after a repair, by what was done.

    """

    records: list[Record] = field(default_factory=list)
    rejected: dict[str, list[str]] = field(default_factory=dict)
    repaired: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, reason: str, name: str) -> None:
        """Leave a record out."""
        self.rejected.setdefault(reason, []).append(name)

    def repair(self, what: str, name: str) -> None:
        """Note a repair."""
        self.repaired.setdefault(what, []).append(name)

    def add(self, other: "LoadedRecords") -> None:
        """Add another file's."""
        self.records += other.records
        for mine, theirs in ((self.rejected, other.rejected), (self.repaired, other.repaired)):
            for what, names in theirs.items():
                mine.setdefault(what, []).extend(names)

    def summary(self) -> list[str]:
        """One line for each reason and repair.

        >>> loaded = LoadedRecords()
        >>> loaded.reject("no supporting fact", "q7")
        >>> loaded.summary()
        ['questions left out: 1, no supporting fact (q7)']

        """
        lines = []
        for what, groups in (("left out", self.rejected), ("repaired", self.repaired)):
            for reason, names in groups.items():
                lines.append(f"questions {what}: {len(names)}, {reason} ({shortened(names)})")
        return lines


REPEATED = "repeated id"
"""Reason of a record whose id an earlier one has."""


def join_files(files: Iterable[tuple[Path, LoadedRecords]]) -> LoadedRecords:
    """Records of several files as one source.

    Args:
        files: Paths and what was loaded from them.

    Raises:
        UserError: a file holds no usable record, nor one that an earlier file has.

    """
    joined = LoadedRecords()
    for path, part in files:
        if not part.records and REPEATED not in part.rejected:
            raise UserError(
                f"task source: {path}: no usable question; {'; '.join(part.summary())}; a file is a JSON list of "
                "records, or has one a line"
            )
        joined.add(part)
    return joined


def join_sentences(title: str, sentences: Iterable[str], facts: Iterable[int]) -> Passage:
    """Passage of sentences joined by single spaces; the sentences numbered in `facts` are its evidence.

    >>> passage = join_sentences("Ada", ["Ada sings.", "She is tall."], facts=[1])
    >>> passage.text, passage.evidence
    ('Ada sings. She is tall.', ((11, 23),))

    """
    wanted, text, evidence = set(facts), "", list[Span]()
    for number, sentence in enumerate(sentences):
        if not sentence:
            continue
        start = len(text) + bool(text)
        text = f"{text} {sentence}" if text else sentence
        if number in wanted:
            evidence.append((start, len(text)))
    return Passage(title, text, tuple(evidence))
