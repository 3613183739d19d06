"""Prompts of a question and its documents, with the tokens of each source, and with some sources removed."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from extract.errors import UserError
from extract.llm import LLM
from extract.prompts import Span, TokenizedText
from extract.tasks import PromptBuilder, QuestionTexts, evidence_characters
from extract.tasks.sources import Passage, Record
from probe.attribution.sources import Source, Unit, kept_text, split_sources


@dataclass(frozen=True, eq=False)
class SourcedPrompt:
    """A question's prompt, and where its sources are in it.

    Attributes:
        question: The question.
        passages: The documents, with the sources' characters as evidence. A title precedes its text and is no source.
        sources: Parts of the documents.
        tokenized: The prompt's text and tokens.
        spans: Token spans of each source; each token belongs to the source of its first character.
        builder: Makes the prompts.

    """

    question: str
    passages: tuple[Passage, ...]
    sources: tuple[Source, ...]
    tokenized: TokenizedText
    spans: tuple[list[Span], ...]
    builder: PromptBuilder

    @property
    def ids(self) -> list[int]:
        """Tokens of the prompt."""
        return self.tokenized.ids

    @property
    def documents(self) -> tuple[str, ...]:
        """Texts of the documents."""
        return tuple(passage.text for passage in self.passages)

    def source_texts(self) -> list[str]:
        """Text of each source."""
        return [self.passages[s.document].text[s.start : s.end] for s in self.sources]

    def ablated(self, kept: Sequence[bool]) -> list[int]:
        """Tokens of the prompt without some sources: their text is removed, and a title with its last source.

        Args:
            kept: Whether each source stays.

        """
        passages, pairs = list[Passage](), zip(self.sources, kept, strict=True)
        for document, group in groupby(pairs, key=lambda pair: pair[0].document):
            sources, stays = zip(*group, strict=True)
            if any(stays):
                passage = self.passages[document]
                passages.append(replace(passage, text=kept_text(passage.text, sources, stays), evidence=()))
        return self.builder.build(_record(self.question, passages)).tokenized.ids


class SourcedPrompts:
    """Makes prompts of questions and documents, as the tasks' are, with sources.

    Args:
        llm: Its tokenizer and chat template make the prompts.
        texts: Texts of the prompts; by default those of a chain of thought.
        unit: What a source is.

    """

    def __init__(self, llm: LLM, texts: QuestionTexts | None = None, unit: Unit = "sentence") -> None:
        self._llm, self._unit = llm, unit
        self._builder = PromptBuilder(llm, texts or QuestionTexts().in_style("chain"), "full")

    def build(self, question: str, documents: Sequence[Passage | str]) -> SourcedPrompt:
        """The prompt of a question.

        Raises:
            UserError: there is no document, one has no text, or the chat template changes them.

        """
        passages = [Passage("", one) if isinstance(one, str) else one for one in documents]
        tokenizer = self._llm.tokenizer if self._unit == "token" else None
        sources = split_sources([passage.text for passage in passages], self._unit, tokenizer)
        marked = [replace(passage, evidence=()) for passage in passages]
        for source in sources:
            passage = marked[source.document]
            marked[source.document] = replace(passage, evidence=(*passage.evidence, (source.start, source.end)))
        prompt = self._builder.build(_record(question, marked))
        first = prompt.context[0]
        characters = [(first + start, first + end) for start, end in evidence_characters(marked)]
        spans = source_tokens(prompt.tokenized, characters)
        return SourcedPrompt(question, tuple(marked), tuple(sources), prompt.tokenized, spans, self._builder)


def _record(question: str, passages: Sequence[Passage]) -> Record:
    if not question.strip():
        raise UserError("a question without text; give it one")
    return Record("of these documents", question, "", tuple(passages))


def source_tokens(prompt: TokenizedText, characters: Sequence[Span]) -> tuple[list[Span], ...]:
    """Token spans of each source: its tokens are those whose first character, whitespace left out, it contains.

    Args:
        prompt: The tokenized prompt.
        characters: Of each source, ascending and disjoint.

    >>> prompt = TokenizedText("He ran. I sat.", ids=[1, 2, 3, 4], offsets=[(0, 2), (2, 6), (6, 9), (9, 14)])
    >>> source_tokens(prompt, [(0, 7), (8, 14)])  # the third token, ". I", begins in the first source
    ([(0, 3)], [(3, 4)])

    """
    starts, members = [start for start, _ in characters], [list[int]() for _ in characters]
    for position, (start, end) in enumerate(prompt.offsets):
        piece = prompt.text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        number = bisect_right(starts, first) - 1
        if piece.strip() and number >= 0 and first < characters[number][1]:
            members[number].append(position)
    return tuple([(tokens[0], tokens[-1] + 1)] if tokens else [] for tokens in members)
