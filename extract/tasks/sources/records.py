"""Records: questions with a context and marked evidence."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from extract.prompts import Span


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
                some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                lines.append(f"questions {what}: {len(names)}, {reason} ({some})")
        return lines


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
