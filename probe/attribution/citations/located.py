"""Prompts that someone else made: the sources of documents are found in their text."""

from collections.abc import Sequence

from extract.errors import UserError
from extract.llm import LLM
from extract.prompts import TokenizedText, decode_with_offsets
from extract.tasks import PromptBuilder, QuestionTexts
from extract.tasks.sources import Passage
from probe.attribution.citations.documents import Document
from probe.attribution.prompts import SourcedPrompt, source_tokens
from probe.attribution.sources import Source, Unit, split_sources


def located_prompt(
    llm: LLM, ids: Sequence[int], documents: Sequence[Document], unit: Unit, question: str = ""
) -> SourcedPrompt:
    """A tokenized prompt with the sources of the documents that it contains.

    Each document is searched word for word, whitespace at its ends left out: its last occurrence before the document
    after it, else the last of all, since examples and earlier turns may quote it.

    Args:
        llm: Its tokenizer made the tokens.
        ids: Tokens of the prompt, without padding.
        documents: Documents of the prompt.
        unit: What a source is.
        question: The question, which is only shown.

    Raises:
        UserError: a document is not in the prompt.

    """
    prompt = decode_with_offsets(llm.tokenizer, ids, special=True)
    texts = [one.text for one in documents]
    sources = split_sources(texts, unit, llm.tokenizer if unit == "token" else None)
    starts = document_starts(prompt.text, texts)
    # Their places ascend in the prompt, whatever order the documents are given in.
    places = sorted((starts[s.document] + s.start, starts[s.document] + s.end, n) for n, s in enumerate(sources))
    found = source_tokens(prompt, [(start, end) for start, end, _ in places])
    spans = {number: tokens for (_, _, number), tokens in zip(places, found, strict=True)}
    return SourcedPrompt(
        question=question,
        passages=_passages(documents, sources),
        sources=tuple(sources),
        tokenized=TokenizedText(prompt.text, list(ids), prompt.offsets),
        spans=tuple(spans[number] for number in range(len(sources))),
        builder=PromptBuilder(llm, QuestionTexts().in_style("chain"), "full"),
    )


def _passages(documents: Sequence[Document], sources: Sequence[Source]) -> tuple[Passage, ...]:
    """The documents, with the characters of their sources as evidence."""
    return tuple(
        Passage(one.title, one.text, tuple((s.start, s.end) for s in sources if s.document == number))
        for number, one in enumerate(documents)
    )


def document_starts(prompt: str, documents: Sequence[str]) -> list[int]:
    """Character of the prompt at which each document begins; negative where the prompt lacks whitespace before it.

    Raises:
        UserError: a document is not in the prompt.

    >>> document_starts("Context: Ada sings. Bo left.", ["Bo left.", "Ada sings."])
    [20, 9]

    """
    found, after = list[int](), len(prompt)
    for number, text in reversed([*enumerate(documents, start=1)]):
        shown = text.strip()
        start = prompt.rfind(shown, 0, after)
        start = prompt.rfind(shown) if start < 0 else start
        if start < 0:
            raise UserError(
                f"document {number} is not in the prompt word for word; give the documents as the prompt shows them"
            )
        after = start
        found.append(start - (len(text) - len(text.lstrip())))
    return found[::-1]
