"""Three contexts of one question: with its evidence, with other sentences in its place, and with a contradiction."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from extract.errors import UserError
from extract.prompts import Span, sentence_spans
from extract.tasks import contains, normalize
from extract.tasks.sources import Passage, Record

Context = Literal["evidence", "removed", "contradiction"]
"""The context as it is; with other sentences in place of its evidence; with another answer in place of the gold one."""
CONTEXTS: tuple[Context, ...] = get_args(Context)
CLOSED = ("yes", "no")
"""Answers that no passage states."""
FILLERS = 100
"""Most sentences of other contexts that evidence is replaced by."""


@dataclass(frozen=True)
class Question:
    """A question with its three contexts.

    Attributes:
        gold: Its gold answer, which neither `removed` nor `contradiction` holds.
        planted: The answer that the contradiction states.
        records: The question with each context.

    """

    gold: str
    planted: str
    records: dict[Context, Record]


def context_words(record: Record) -> str:
    """Titles and texts of a context, for string matching.

    >>> context_words(Record("1", "Who?", "Ada", (Passage("Ada", "Ada sings."), Passage("", "Bo left."))))
    'Ada Ada sings. Bo left.'

    """
    return " ".join(text for passage in record.passages for text in (passage.title, passage.text) if text)


def unsuited(record: Record) -> str | None:
    """Why a question has no contexts without its answer; None if it has.

    >>> fact = Passage("", "Ada lives in Oslo.", evidence=((0, 18),))
    >>> unsuited(Record("1", "Where does Ada live?", "Oslo", (fact,)))
    >>> unsuited(Record("1", "Is Ada in Oslo or in Rome?", "Oslo", (fact,)))
    'the question names the answer'

    """
    if normalize(record.answer) in (*CLOSED, ""):
        return "the answer is yes, no or empty"
    if contains(record.question, record.answer):
        return "the question names the answer"
    return None if states(record, record.answer) else "no supporting fact states the answer"


def states(record: Record, answer: str) -> bool:
    """Whether a supporting fact of a question has an answer.

    >>> states(Record("1", "Where?", "Oslo", (Passage("", "Ada lives in Oslo.", ((0, 18),)),)), "Rome")
    False

    """
    facts = (passage.text[start:end] for passage in record.passages for start, end in passage.evidence)
    return any(contains(fact, answer) for fact in facts)


def without_evidence(record: Record, fillers: Sequence[str]) -> Record | None:
    """The question with other sentences in place of its evidence, so that the context keeps its length.

    Each supporting fact, any other sentence that has the gold answer, and all sentences under a title that has it (it
    is left out) are replaced by the filler that is closest in length, each used once. Other text stays as it is.

    Args:
        record: The question.
        fillers: Sentences without the gold answer.

    Returns:
        None if there are too few fillers.

    >>> passages = (Passage("Ada", "Ada lives in Oslo. She is tall.", ((0, 18),)), Passage("", "Bo is cold."))
    >>> found = without_evidence(Record("1", "Where is Ada?", "Oslo", passages), ["It rains.", "Salt is sold here."])
    >>> [passage.text for passage in found.passages]
    ['Salt is sold here. She is tall.', 'Bo is cold.']

    """
    left, passages = list(fillers), list[Passage]()
    for passage in record.passages:
        titled, text = contains(passage.title, record.answer), passage.text
        parts = list[str]()
        for start, end in sentence_spans(text):
            sentence = text[start:end]
            if titled or _overlaps((start, end), passage.evidence) or contains(sentence, record.answer):
                if not left:
                    return None
                core = sentence.strip()
                filler = min(left, key=lambda one: abs(len(one) - len(core)))
                left.remove(filler)
                sentence = sentence.replace(core, filler)
            parts.append(sentence)
        passages.append(Passage("" if titled else passage.title, "".join(parts)))
    return replace(record, passages=tuple(passages))


def filler_sentences(records: Sequence[Record], number: int, absent: Sequence[str]) -> list[str]:
    """Sentences that are no evidence, from the contexts of the following questions, from the start again.

    Args:
        records: All questions.
        number: Place of the question that they are for.
        absent: Answers that none of them may have.

    >>> passage = Passage("", "Ada lives in Oslo. She is tall. Rome is old.", evidence=((0, 18),))
    >>> filler_sentences([Record(name, "Where?", "Oslo", (passage,)) for name in "ab"], 0, absent=["Rome"])
    ['She is tall.']

    """
    found = dict[str, None]()
    for other in (*records[number + 1 :], *records[:number]):
        for passage in other.passages:
            for start, end in sentence_spans(passage.text):
                text = passage.text[start:end].strip()
                usable = bool(text) and not _overlaps((start, end), passage.evidence)
                if usable and not any(contains(text, answer) for answer in absent):
                    found[text] = None
        if len(found) >= FILLERS:
            break
    return list(found)[:FILLERS]


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(start < span[1] and end > span[0] for start, end in others)


def contradicted(record: Record, planted: str) -> Record:
    """The question whose context states another answer: the gold one is replaced wherever it occurs, titles included.

    Whole words in any case are replaced; nothing else changes, and evidence keeps its place.

    >>> fact = Passage("Oslo", "Ada lives in Oslo, the city.", evidence=((0, 18),))
    >>> found = contradicted(Record("1", "Where?", "Oslo", (fact,)), "New York").passages[0]
    >>> found.title, found.text, found.evidence
    ('New York', 'Ada lives in New York, the city.', ((0, 22),))

    """
    return replace(record, passages=tuple(_replaced(passage, record.answer, planted) for passage in record.passages))


def _replaced(passage: Passage, gold: str, planted: str) -> Passage:
    pattern = re.compile(rf"(?<!\w){re.escape(gold.strip())}(?!\w)", re.IGNORECASE)
    ends = [match.end() for match in pattern.finditer(passage.text)]
    starts = [match.start() for match in pattern.finditer(passage.text)]
    longer = len(planted) - len(gold.strip())

    def moved(place: int, bounds: Sequence[int]) -> int:
        return place + longer * sum(bound <= place for bound in bounds)

    evidence = tuple((moved(start, ends), moved(end, [at + 1 for at in starts])) for start, end in passage.evidence)
    title, text = (pattern.sub(lambda _: planted, part) for part in (passage.title, passage.text))
    return Passage(title, text, evidence)


def form(answer: str) -> tuple[str, ...]:
    """Form of an answer, by which another one of its kind is found: of each word, whether it has a digit or a capital.

    >>> form("Oslo"), form("4 July 1985"), form("the red one")
    (('capital',), ('digit', 'capital', 'digit'), ('lower', 'lower', 'lower'))

    """
    return tuple(
        "digit" if any(letter.isdigit() for letter in word) else "capital" if word[:1].isupper() else "lower"
        for word in answer.split()
    )


def other_answer(records: Sequence[Record], number: int) -> str | None:
    """Answer of another question that takes the gold one's place: the next in order, from the start again, that suits.

    It has the same form, no word in common with the gold answer, and does not occur in the question or its context.

    Args:
        records: All questions.
        number: Place of the question.

    >>> answers = ["Oslo", "1985", "Rome"]
    >>> records = [Record(str(n), "Where?", answer, ()) for n, answer in enumerate(answers)]
    >>> other_answer(records, 0), other_answer(records, 1)
    ('Rome', None)

    """
    record = records[number]
    text, words = f"{record.question} {context_words(record)}", set(normalize(record.answer).split())
    for other in (*records[number + 1 :], *records[:number]):
        answer = other.answer.strip()
        suits = form(answer) == form(record.answer) and not words & set(normalize(answer).split())
        if suits and not contains(text, answer):
            return answer
    return None


def questions_of(records: Sequence[Record]) -> tuple[dict[int, Question], dict[str, int]]:
    """Questions that have all three contexts, by their place; and how many have not, by reason.

    Raises:
        UserError: no question has them.

    >>> fact = Passage("", "Ada lives in Oslo. She is tall.", evidence=((0, 18),))
    >>> records = [Record("1", "Where is Ada?", "Oslo", (fact,)), Record("2", "Where is Bo?", "Rome", (fact,))]
    >>> found, left_out = questions_of(records)
    >>> found[0].records["removed"].passages[0].text
    'She is tall. She is tall.'
    >>> found[0].planted, left_out
    ('Rome', {'no supporting fact states the answer': 1})

    """
    found, left_out = dict[int, Question](), dict[str, int]()
    for number in range(len(records)):
        made = _question(records, number)
        if isinstance(made, Question):
            found[number] = made
        else:
            left_out[made] = left_out.get(made, 0) + 1
    if not found:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in left_out.items())
        raise UserError(f"task source: no question whose evidence can be replaced: {reasons}; choose another source")
    return found, left_out


def _question(records: Sequence[Record], number: int) -> Question | str:
    """A question with its contexts, or why it has none."""
    record = records[number]
    if reason := unsuited(record):
        return reason
    planted = other_answer(records, number)
    if planted is None:
        return "no other question has an answer of the same form"
    removed = without_evidence(record, filler_sentences(records, number, [record.answer, planted]))
    contradiction = contradicted(record, planted)
    if removed is None:
        return "too few other sentences to take the evidence's place"
    elsewhere = any(contains(context_words(one), record.answer) for one in (removed, contradiction))
    if elsewhere or not states(contradiction, planted):
        return "the context states the answer in other words"
    return Question(record.answer, planted, dict(zip(CONTEXTS, (record, removed, contradiction), strict=True)))
